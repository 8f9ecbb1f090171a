"""Two processes (gloo, CPU) train as one does at the same global batch."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attacks import ThreatModel
from epsilens.errors import ConfigError
from epsilens.models import build
from epsilens.models.folding import Folded
from epsilens.training import Checkpoints, Trainer, World, fit, joined
from epsilens.training.distribution import SynchronisedBatchNorm2d
from epsilens.types import Samples
from tests.unit.test_training import CONFIG, RECIPE_CHOICES

STEPS = 3
CONFIG_32 = CONFIG.model_copy(update={"batch_size": 12, "epochs": 1})


def network() -> nn.Module:
    return build("small_resnet", {"width": 4, "stem_stride": 1}, 3, [0.5] * 3, [0.25] * 3, seed=1)


def samples(count: int) -> Samples:
    g = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 8, 6), generator=g, dtype=torch.uint8)
    masks = torch.zeros(count, 8, 6, dtype=torch.bool)
    return Samples(images, torch.arange(count) % 3, masks, torch.arange(count))


def trained(world: World, recipe: str, folder: Path) -> dict[str, Any]:
    """Gradients of the first step, and what one epoch of three steps leaves behind."""
    torch.set_num_threads(1)
    config = CONFIG_32.model_copy(update={"recipe": RECIPE_CHOICES[recipe]})
    trainer = Trainer(network(), ThreatModel.of("linf", 8), config, seed=0, world=world, view=Folded)
    gradients: list[list[Tensor]] = []
    step = trainer.optimiser.step

    def recorded() -> None:
        gradients.append([p.grad.clone() for p in trainer.network.parameters() if p.grad is not None])
        step()

    trainer.optimiser.step = recorded  # type: ignore[method-assign, assignment]
    checkpoints = Checkpoints(folder, 0.0)
    state, history = fit(trainer, samples(12 * STEPS), samples(7), checkpoints, lambda epoch: None)
    other = Trainer(network(), ThreatModel.of("linf", 8), config, seed=0, world=world, view=Folded)
    resumed, _ = fit(other, samples(12 * STEPS), samples(7), checkpoints, lambda epoch: None)
    again = (other.number, other.step)
    return {"gradients": gradients[0], "state": state, "history": history, "resumed": resumed, "again": again}


def work(rank: int, port: int, recipe: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2), ("MASTER_PORT", port)):
            patch.setenv(name, str(value))
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        with joined("cpu") as world:
            assert (world.rank, world.size, world.first) == (rank, 2, rank == 0)
            found = trained(world, recipe, folder / f"checkpoints-{rank}")
            torch.save(found, folder / f"{rank}.pt")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("recipe", ["pgd", "trades"])
def test_two_processes_train_as_one(recipe: str, tmp_path: Path) -> None:
    mp.spawn(work, (free_port(), recipe, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = trained(World("cpu"), recipe, tmp_path / "alone")
    for a, b, c in zip(first["gradients"], second["gradients"], alone["gradients"], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-6)
    assert first["history"] == second["history"]
    assert first["state"].keys() == alone["state"].keys()  # names of weights do not tell how many trained them
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name])
        if (
            recipe == "pgd"
        ):  # TRADES starts where its gradient is about 0: rounding decides signs, and steps drift apart
            torch.testing.assert_close(value, alone["state"][name], rtol=1e-3, atol=1e-4)
    for key, value in alone["history"][0].items():
        assert first["history"][0][key] == pytest.approx(value, rel=1e-3 if recipe == "pgd" else 0.1)
    for found in (first, second):  # the second process has no checkpoint, and is given the first one's
        assert found["again"] == (1, 0)
        assert all(torch.equal(value, first["state"][name]) for name, value in found["resumed"].items())
    assert not list(tmp_path.glob("checkpoints-1/*"))  # the first process writes
    assert list(tmp_path.glob("checkpoints-0/*.pt"))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert [World("cpu", rank, 2).part(torch.arange(6)).tolist() for rank in (0, 1)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ConfigError, match=r"train.batch_size: found 7, expected a multiple of 2"):
        World("cpu", 0, 2).part(torch.arange(7))


def test_alone_nothing_is_wrapped() -> None:
    world = World("cpu")
    net = network()
    assert world.parallel(net) is net
    assert not any(isinstance(m, SynchronisedBatchNorm2d) for m in world.synchronised(net).modules())


def normalise(rank: int, port: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    norm = SynchronisedBatchNorm2d.of(weighted())
    x = batch()[4 * rank : 4 * rank + 4].requires_grad_()
    y = norm(x)
    (y * target()[4 * rank : 4 * rank + 4]).sum().backward()
    found = {"y": y.detach(), "dx": x.grad, "dw": norm.weight.grad, **norm.state_dict()}
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def weighted() -> nn.BatchNorm2d:
    g = torch.Generator().manual_seed(2)
    norm = nn.BatchNorm2d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(5, generator=g))
        norm.bias.copy_(torch.randn(5, generator=g))
    return norm


def batch() -> Tensor:
    return 300 + 0.3 * torch.randn(
        8, 5, 4, 3, generator=torch.Generator().manual_seed(3)
    )  # far from its running mean, 0


def target() -> Tensor:
    return torch.randn(8, 5, 4, 3, generator=torch.Generator().manual_seed(4))


def test_synchronised_batch_norm_equals_batch_norm_of_the_whole(tmp_path: Path) -> None:
    mp.spawn(normalise, (free_port(), tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    norm, x = weighted().double(), batch().double().requires_grad_()
    y = norm(x)
    (y * target().double()).sum().backward()
    close = {"rtol": 1e-3, "atol": 2e-4}
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]).double(), y.detach(), **close)
    torch.testing.assert_close(torch.cat([part["dx"] for part in parts]).double(), x.grad, **close)
    torch.testing.assert_close(sum(part["dw"] for part in parts).double(), norm.weight.grad, **close)
    for part in parts:
        torch.testing.assert_close(part["running_mean"].double(), norm.running_mean, **close)
        torch.testing.assert_close(part["running_var"].double(), norm.running_var, **close)
        assert part["num_batches_tracked"] == 1


def test_a_batch_norm_that_cannot_be_synchronised_is_refused() -> None:
    for norm in (nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm1d(3)):
        with pytest.raises(ConfigError, match="cannot be synchronised"):
            World("cpu", 0, 2).synchronised(nn.Sequential(nn.Identity(), norm))


def test_synchronised_batch_norm_in_eval_mode_is_batch_norm() -> None:
    norm = weighted().eval()
    assert F.mse_loss(SynchronisedBatchNorm2d.of(norm)(batch()), norm(batch())) == 0
