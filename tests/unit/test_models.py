"""Networks, and their way to disk and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from epsilens import artifacts, models
from epsilens.errors import ConfigError, DataError
from epsilens.models import MODELS, build, resnet
from epsilens.models import checkpoints as networks
from epsilens.models.config import ModelConfig
from tests.options import of_network

OPTIONS = {name: of_network(name) for name in MODELS}
CARD = {"architecture": "small_resnet", "options": OPTIONS["small_resnet"], "class_names": ["a", "b", "c"],
        "mean": [0.4, 0.5], "std": [0.2, 0.3]}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_takes_its_channels_and_classes(name: str) -> None:
    network = build(name, OPTIONS[name], classes=3, mean=[0.5, 0.4], std=[0.2, 0.3], seed=0).eval()
    assert network(torch.rand(2, 2, 24, 20)).shape == (2, 3)


@pytest.mark.parametrize("name", MODELS)
def test_every_activation_is_a_module_used_once(name: str) -> None:
    """Methods that hook ReLU are silently wrong on a functional or a shared one."""
    network = build(name, OPTIONS[name], classes=3, mean=[0.5], std=[0.2], seed=0).eval()
    calls: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, *_: calls.append(id(m)))
    network(torch.rand(1, 1, 16, 16))
    assert len(calls) == len(set(calls)) == sum(isinstance(m, nn.ReLU) for m in network.modules())
    graph = torch.fx.symbolic_trace(network)
    functional = [node for node in graph.graph.nodes if node.op == "call_function" and "relu" in str(node.target)]
    assert not functional


@pytest.mark.parametrize("name", MODELS)
def test_nothing_clamps_saturated_pixels(name: str) -> None:
    """With a clamp in the path, torch >= 2.14 gives pixels at 0 and 1 no gradient."""
    network = build(name, OPTIONS[name], classes=3, mean=[0.5], std=[0.2], seed=0).eval()
    x = (torch.rand(2, 1, 16, 16) < 0.5).float().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    assert (gradient != 0).double().mean() > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_no_narrow_projection_has_a_stride(name: str) -> None:
    """oneDNN's gradient of its weights writes past its memory (oneDNN issue 6035)."""
    for module in build(name, OPTIONS[name], classes=3, mean=[0.5], std=[0.2], seed=0).modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            assert module.stride == (1, 1) or module.in_channels >= resnet.NARROW


@pytest.mark.parametrize("inputs", [4, resnet.NARROW - 1, resnet.NARROW])
@pytest.mark.parametrize("side", [7, 8])
def test_a_projection_is_a_strided_convolution(inputs: int, side: int) -> None:
    projection = resnet.Projection(inputs, 5, 2).eval()
    plain = nn.Conv2d(inputs, 5, 1, 2, bias=False)
    plain.load_state_dict(projection[0].state_dict())
    x = torch.rand(2, inputs, side, side)
    torch.testing.assert_close(projection(x), projection[1](plain(x)))


def test_normalisation_is_the_first_layer() -> None:
    network = build("small_resnet", OPTIONS["small_resnet"], classes=3, mean=[0.5, 0.25], std=[0.5, 0.1], seed=0)
    out = network[0](torch.tensor([[[[1.0]], [[0.5]]]]))
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, 2.5]))


def test_the_seed_alone_decides_the_weights() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        return list(build("small_resnet", OPTIONS["small_resnet"], 3, [0.5], [0.2], seed).state_dict().values())

    before = torch.random.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(2), strict=True))


def test_unknown_names_and_options_are_answered() -> None:
    with pytest.raises(ConfigError, match=r"model\.name.*small_resnet.*did you mean"):
        models.check(ModelConfig(name="smal_resnet", options={}))
    with pytest.raises(ConfigError, match=r"model\.options\.stem_stride: missing(.|\n)*model\.options\.depth: unknown"):
        models.check(ModelConfig(name="small_resnet", options={"width": 4, "depth": 2}))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    network = build(CARD["architecture"], CARD["options"], 3, CARD["mean"], CARD["std"], seed=7)
    network.train()(torch.rand(8, 2, 16, 16))  # moves the batch statistics
    networks.save(tmp_path, network.state_dict(), CARD)
    return tmp_path


def test_a_network_comes_back_as_it_was(saved: Path) -> None:
    loaded = networks.load(saved, "cpu")
    again = networks.load(saved, "cpu")
    x = torch.rand(4, 2, 16, 16)
    assert torch.equal(loaded(x), again(x))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    original = artifacts.read_tensors(saved / networks.WEIGHTS)
    assert all(torch.equal(original[k], v) for k, v in loaded.state_dict().items())


def test_the_same_network_gives_the_same_bytes(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    networks.save(other, networks.load(saved, "cpu").state_dict(), CARD)
    for name in (networks.WEIGHTS, networks.CARD):
        assert (other / name).read_bytes() == (saved / name).read_bytes()


def test_a_flipped_bit_is_found(saved: Path) -> None:
    path = saved / networks.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="SHA-256"):
        networks.load(saved, "cpu")


def test_weights_of_another_architecture_are_named(saved: Path) -> None:
    card = artifacts.read_json(saved / networks.CARD)
    artifacts.write_json(saved / networks.CARD, {**card, "options": {"width": 5, "stem_stride": 2}})
    with pytest.raises(DataError, match="size mismatch"):
        networks.load(saved, "cpu")


def test_nan_weights_are_not_written(tmp_path: Path) -> None:
    state = build("small_resnet", OPTIONS["small_resnet"], 3, [0.5], [0.2], 0).state_dict()
    state["1.head.bias"][1] = torch.nan
    with pytest.raises(DataError, match=r"1\.head\.bias"):
        networks.save(tmp_path, state, CARD)
    assert list(tmp_path.iterdir()) == []
