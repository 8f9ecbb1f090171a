"""Residual networks for small images (He et al. 2016, arXiv:1512.03385).

Every activation is an `nn.ReLU` module of its own: methods that hook ReLU (DeepLift, guided backpropagation) are silently
wrong on a functional or shared one. The head is global average pooling.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

Width = Annotated[int, Field(ge=1, le=1024)]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (a 1x1 convolution where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of basic blocks (each stage after the first halves the side), and a linear head."""

    def __init__(self, channels: int, classes: int, widths: list[int], blocks: int, stem_stride: int) -> None:
        super().__init__()
        stem = [_conv(channels, widths[0], 3, stem_stride), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        body, inputs = [], widths[0]
        for stage, outputs in enumerate(widths):
            for block in range(blocks):
                body.append(BasicBlock(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.features = nn.Sequential(*stem, *body)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


def small_resnet(
    channels: int, classes: int, *, width: Width, stem_stride: Annotated[int, Field(ge=1, le=4)]
) -> nn.Module:
    """Three stages of one block, of 1, 2 and 4 times `width` channels: 78,000 parameters at width 16."""
    return ResNet(channels, classes, [width, 2 * width, 4 * width], blocks=1, stem_stride=stem_stride)


def resnet18(channels: int, classes: int, *, width: Width) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1; `width` 64 is the usual one (11.2 million parameters)."""
    return ResNet(channels, classes, [width, 2 * width, 4 * width, 8 * width], blocks=2, stem_stride=1)
