"""Residual networks (He et al. 2016, arXiv:1512.03385), for small images and for those of ImageNet.

Every activation is an `nn.ReLU` module of its own: methods that hook ReLU (DeepLift, guided backpropagation) are silently
wrong on a functional or shared one. The head is global average pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

# Channels below which oneDNN's gradient of the weights of a strided 1x1 convolution in channels_last layout writes past its
# memory: seen with 2 to 6 (AVX2, torch 2.14.1), known with fewer than 8 (oneDNN issue 6035). Blocks of AVX-512 have 16.
NARROW = 16

Width = Annotated[int, Field(ge=1, le=1024)]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Projection(nn.Sequential):
    """A 1x1 convolution with a stride.

    With fewer than NARROW input channels it is taken of every `stride`-th pixel instead, which is the same.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        self.step = stride if inputs < NARROW else 1
        super().__init__(_conv(inputs, outputs, 1, stride // self.step), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.step == 1 else x[..., :: self.step, :: self.step])


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The input itself; a projection where the shape changes."""
    return nn.Identity() if stride == 1 and inputs == outputs else Projection(inputs, outputs, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions of `width` channels and a shortcut."""

    expansion = 1  # channels that come out, per `width`

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 3x3 convolution of `width` channels between two 1x1 ones, and a shortcut.

    The 3x3 convolution has the stride (in the paper the first has), as in torchvision and robustness.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(y)))))
        return self.relu3(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of blocks (each stage after the first halves the side and doubles the width), and a linear head.

    stem: what comes before the blocks, `width` channels. blocks: how many blocks each stage has.
    """

    def __init__(
        self,
        stem: Sequence[nn.Module],
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        width: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.stem, self.blocks = len(stem), tuple(blocks)
        body, inputs = [], width
        for stage, count in enumerate(blocks):
            for number in range(count):
                body.append(block(inputs, width << stage, 2 if stage and not number else 1))
                inputs = block.expansion * (width << stage)
        self.features = nn.Sequential(*stem, *body)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


def _small_stem(channels: int, width: int, stride: int) -> list[nn.Module]:
    return [_conv(channels, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()]


def _large_stem(channels: int, width: int) -> list[nn.Module]:
    """7x7 of stride 2 and a maximum over 3x3 of stride 2: a quarter of the side is left."""
    return [_conv(channels, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]


def small_resnet(
    channels: int, classes: int, *, width: Width, stem_stride: Annotated[int, Field(ge=1, le=4)]
) -> nn.Module:
    """Three stages of one block, of 1, 2 and 4 times `width` channels: 78,000 parameters at width 16."""
    return ResNet(_small_stem(channels, width, stem_stride), BasicBlock, (1, 1, 1), width, classes)


def resnet18(channels: int, classes: int, *, width: Width) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1; `width` 64 is the usual one (11.2 million parameters)."""
    return ResNet(_small_stem(channels, width, 1), BasicBlock, (2, 2, 2, 2), width, classes)


def resnet50(channels: int, classes: int, *, width: Width) -> nn.Module:
    """ResNet-50 with a 3x3 stem of stride 1; `width` 64 is the usual one (23.5 million parameters)."""
    return ResNet(_small_stem(channels, width, 1), Bottleneck, (3, 4, 6, 3), width, classes)


def imagenet_resnet18(channels: int, classes: int, *, width: Width) -> nn.Module:
    """ResNet-18 for images of 224 pixels; `width` 64 is torchvision's."""
    return ResNet(_large_stem(channels, width), BasicBlock, (2, 2, 2, 2), width, classes)


def imagenet_resnet50(channels: int, classes: int, *, width: Width) -> nn.Module:
    """ResNet-50 for images of 224 pixels; `width` 64 is torchvision's."""
    return ResNet(_large_stem(channels, width), Bottleneck, (3, 4, 6, 3), width, classes)
