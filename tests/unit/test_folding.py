"""Batch norm folded into convolutions: the same function, kept up to date."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from epsilens.models import build
from epsilens.models.folding import Folded


class PreActivation(nn.Module):
    """A batch norm before any convolution, one whose convolution has a second reader, and one without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)
        self.second, self.third = nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        self.last = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.first(x).relu())
        return self.third(self.last(self.second(y) + y)[:, :3]).mean((2, 3))


class Shared(nn.Module):
    """One convolution at two places, with two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.conv(self.one(self.conv(x)).relu())).mean((2, 3))


class Renamed(nn.BatchNorm2d):
    """A batch norm of another class, as the synchronised one."""

    batch_norm_in_eval = True


class Activated(nn.BatchNorm2d):
    """A batch norm that does more."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class Strange(nn.Module):
    """What must not be folded, or only with care."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.activated = nn.Conv2d(3, 3, 3), Activated(3)
        self.b, self.after_b = weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
        self.c, self.after_c = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.d, self.after_d = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.d.weight = self.c.weight
        self.e, self.after_e = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.e.register_forward_hook(lambda module, arguments, output: output.tanh())
        self.f, self.after_f = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.register_buffer("v", torch.tensor(0.7))

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        x = self.after_b(self.b(self.activated(self.a(x))))
        x = self.after_d(self.d(self.after_c(self.c(x)))) if isinstance(x, Tensor) else x
        x = self.after_f(input=self.f(self.after_e(self.e(x))))
        with torch.no_grad():
            shift = x.mean()
        return ((x - shift) * (self.v + 1).sqrt() * self.f.weight.mean()).mean((2, 3))


class Plain(nn.Module):
    """A convolution with a bias; one batch norm after two convolutions; one that keeps no statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.own = nn.Conv2d(3, 3, 3, bias=True), Renamed(3)
        self.left, self.right, self.both = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.last, self.batch = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.own(self.conv(x)).relu()
        return self.batch(self.last(self.both(self.left(x)) + self.both(self.right(x)))).square().mean((2, 3))


class Untraceable(nn.Module):
    """Control flow that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.conv(x)))
        return (x if x.sum() > 0 else -x).mean((2, 3))


NETWORKS = {
    "small_resnet": lambda: build("small_resnet", {"width": 4, "stem_stride": 2}, 7, [0.4] * 3, [0.2] * 3, 0),
    "resnet18": lambda: build("resnet18", {"width": 4}, 7, [0.4] * 3, [0.2] * 3, 0),
    "resnet50": lambda: build("resnet50", {"width": 4}, 7, [0.4] * 3, [0.2] * 3, 0),
    "imagenet_resnet18": lambda: build("imagenet_resnet18", {"width": 4}, 7, [0.4] * 3, [0.2] * 3, 0),
    "pre-activation": PreActivation,
    "shared": Shared,
    "plain": Plain,
    "strange": Strange,
    "untraceable": Untraceable,
}
LEFT = {
    "strange": 6,
    "small_resnet": 0,
    "resnet18": 0,
    "resnet50": 0,
    "imagenet_resnet18": 0,
    "pre-activation": 3,
    "shared": 2,
    "plain": 2,
    "untraceable": 1,
}  # batch norms not folded


def shaken(network: nn.Module) -> nn.Module:
    """With statistics and weights as after some training, in float64 and training mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.track_running_stats:
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.3, 3.0)
            if module.affine:
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.double().train()


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_is_the_same_function_now_and_after_a_change(name: str) -> None:
    network = shaken(NETWORKS[name]())
    folded = Folded(network)
    images = torch.rand(4, 3, 12, 16, dtype=torch.float64)
    before = copy.deepcopy(network.state_dict())
    torch.testing.assert_close(folded.predict(images), copy.deepcopy(network).eval()(images))
    gradients = []
    for predict in (folded.predict, copy.deepcopy(network).eval()):
        x = images.clone().requires_grad_()
        gradients += torch.autograd.grad(predict(x).square().sum(), x)
    torch.testing.assert_close(*gradients)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.mul_(1.2)
        network(images)  # moves the statistics
    assert not torch.allclose(folded.predict(images), copy.deepcopy(network).eval()(images))
    folded.refresh()
    torch.testing.assert_close(folded.predict(images), copy.deepcopy(network).eval()(images))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_can_be_folded_is_folded_and_frozen(name: str) -> None:
    predict = Folded(NETWORKS[name]()).predict
    assert sum(isinstance(module, nn.BatchNorm2d) for module in predict.modules()) == LEFT[name]
    assert not any(module.training for module in predict.modules())
    assert not any(parameter.requires_grad for parameter in predict.parameters())


def test_half_precision_weights_follow_too() -> None:
    network = NETWORKS["small_resnet"]()
    folded = Folded(network, torch.bfloat16)
    assert {p.dtype for p in folded.predict.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    folded.refresh()
    images = torch.rand(4, 3, 12, 16)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits = folded.predict(images)
    torch.testing.assert_close(logits.float(), network.eval()(images), rtol=0.05, atol=0.02)
