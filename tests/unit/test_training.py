"""The engine: what it learns, what it keeps, how it continues."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attacks import ThreatModel
from epsilens.errors import NumericError
from epsilens.training import Checkpoints, TrainConfig, Trainer, fit, frozen
from epsilens.training.augment import augment
from epsilens.training.schedule import learning_rate, multi_step, one_cycle
from epsilens.types import Samples

CONFIG = TrainConfig(
    epochs=3,
    batch_size=8,
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="one_cycle",
    warmup=0.4,
    milestones=(),
    averaging=0.9,
    label_smoothing=0.0,
    flip=True,
    crop=1,
    steps=2,
    step_factor=1.0,
    random_start=True,
    validation_steps=3,
)


def network() -> nn.Module:
    torch.manual_seed(3)
    layers = [
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    ]
    return nn.Sequential(*layers)


def samples(count: int, seed: int) -> Samples:
    """Two classes that differ in the brightness of the first channel."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(60, 120, (count, 2, 6, 5), generator=g, dtype=torch.uint8)
    images[:, 0] += (80 * labels).to(torch.uint8)[:, None, None]
    return Samples(images, labels, torch.zeros(count, 6, 5, dtype=torch.bool), torch.arange(count))


def trained(folder: Path, config: TrainConfig = CONFIG, epsilon: float = 4.0, seed: int = 0):
    trainer = Trainer(network(), ThreatModel.of("linf", epsilon), config, seed=seed)
    return fit(trainer, samples(32, 0), samples(12, 1), Checkpoints(folder), lambda epoch: None)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 8, "learning_rate": 0.3})
    state, history = trained(tmp_path, config, epsilon=8.0)
    robust = [epoch["validation_robust_accuracy"] for epoch in history]
    assert max(robust) >= 0.9
    assert [epoch["kept"] for epoch in history].index(True) == robust.index(max(robust))
    assert sum(epoch["kept"] for epoch in history) == 1
    best = network()
    best.load_state_dict(state)
    validation = samples(12, 1)
    accuracy = (best.eval()(validation.pixels()).argmax(1) == validation.labels).float().mean()
    assert accuracy == pytest.approx(history[robust.index(max(robust))]["validation_accuracy"])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (trained(tmp_path / str(i), seed=seed)[0] for i, seed in enumerate((0, 0, 1)))
    assert equal(first, again)
    assert not equal(first, other)


@pytest.mark.parametrize("stopped_after", [1, 2])
def test_a_stopped_run_continues_to_the_same_bits(tmp_path: Path, stopped_after: int) -> None:
    whole, whole_history = trained(tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(epoch) -> None:
        if epoch.epoch == stopped_after + 1:
            raise StopError

    trainer = Trainer(network(), ThreatModel.of("linf", 4), CONFIG, seed=0)
    with pytest.raises(StopError):
        fit(trainer, samples(32, 0), samples(12, 1), Checkpoints(tmp_path / "cut"), stop)
    seen: list[int] = []
    trainer = Trainer(network(), ThreatModel.of("linf", 4), CONFIG, seed=0)
    continued, history = fit(
        trainer, samples(32, 0), samples(12, 1), Checkpoints(tmp_path / "cut"), lambda epoch: seen.append(epoch.epoch)
    )
    assert seen == list(range(stopped_after + 1, 4))
    assert equal(continued, whole)
    assert history == whole_history


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, {"epoch": epoch, "weights": torch.full((50,), float(epoch))})
    newest = max(tmp_path.glob("epoch-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    found = checkpoints.load()
    assert found is not None
    assert found["epoch"] == 2
    assert "damaged" in capsys.readouterr().err
    assert newest.with_suffix(".damaged").exists()
    assert len(list(tmp_path.glob("epoch-*.pt"))) == 1


def test_two_checkpoints_are_kept_and_half_files_are_never_seen(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(5):
        checkpoints.save(epoch, {"epoch": epoch})
    (tmp_path / "epoch-000009-aa.pt.partial").write_bytes(b"half")
    assert sorted(p.name[:12] for p in tmp_path.glob("*.pt")) == ["epoch-000003", "epoch-000004"]
    assert checkpoints.load() == {"epoch": 4}
    checkpoints.clear()
    assert checkpoints.load() is None


def test_a_loss_that_is_not_finite_stops_with_its_place(tmp_path: Path) -> None:
    broken = network()
    nn.init.constant_(broken[5].bias, torch.nan)
    trainer = Trainer(broken, ThreatModel.of("linf", 0), CONFIG, seed=0)
    with pytest.raises(NumericError, match="epoch 1, step 1"):
        fit(trainer, samples(32, 0), samples(12, 1), Checkpoints(tmp_path), lambda epoch: None)


def test_epsilon_zero_is_plain_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step equals SGD on the images themselves, and no attack is run."""
    config = CONFIG.model_copy(update={"batch_size": 32, "crop": 0, "flip": False, "averaging": 0.0, "warmup": 0.0})
    trainer = Trainer(network(), ThreatModel.of("linf", 0), config, seed=0)
    monkeypatch.setattr("epsilens.training.engine.frozen", lambda _: pytest.fail("an attack was run"))
    train = samples(32, 0)
    trainer.epoch(0, train, samples(12, 1))
    plain = network().to(memory_format=torch.channels_last)  # the same layout: the same order of additions
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    F.cross_entropy(plain.train()(train.pixels()), train.labels).backward()
    optimiser.step()
    for a, b in zip(trainer.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert equal(trainer.average.state_dict(), trainer.network.state_dict())


def test_batches_cover_an_epoch_once() -> None:
    trainer = Trainer(
        network(), ThreatModel.of("linf", 0), CONFIG.model_copy(update={"crop": 0, "flip": False}), seed=0
    )
    train = samples(30, 0)
    batches = list(trainer._batches(0, train))
    assert [len(labels) for _, labels in batches] == [8, 8, 8]
    seen = torch.cat([images for images, _ in batches]).flatten(1)
    matches = (seen[:, None] == train.images.flatten(1)[None]).all(dim=2)
    assert (matches.sum(dim=1) == 1).all()
    assert (matches.sum(dim=0) <= 1).all()
    other = torch.cat([labels for _, labels in trainer._batches(1, train)])
    assert not torch.equal(torch.cat([labels for _, labels in batches]), other)


def test_the_average_forgets_its_first_steps() -> None:
    trainer = Trainer(network(), ThreatModel.of("linf", 0), CONFIG, seed=0)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.fill_(2.0)
        for parameter in trainer.average.parameters():
            parameter.zero_()
    trainer._update_average(0)  # decay 1/10
    assert all(torch.allclose(p, torch.tensor(1.8)) for p in trainer.average.parameters())
    trainer._update_average(10**6)  # decay 0.9
    assert all(torch.allclose(p, torch.tensor(1.82)) for p in trainer.average.parameters())


def test_frozen_is_given_back_even_after_an_error() -> None:
    model = network().train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]

    def borrow() -> None:
        with frozen(model):
            assert not any(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        borrow()
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == before


def test_the_attack_leaves_batch_statistics_alone() -> None:
    trainer = Trainer(network(), ThreatModel.of("linf", 8), CONFIG, seed=0)
    before = copy.deepcopy(trainer.network.state_dict())
    images = samples(8, 0).pixels()
    adversarial = trainer._attack(images, torch.arange(8) % 2, torch.Generator().manual_seed(0))
    assert equal(before, trainer.network.state_dict())
    assert 0 < (adversarial - images).abs().max() <= 8 / 255 + 1e-6


def test_one_cycle_and_multi_step() -> None:
    assert [one_cycle(p, 0.25) for p in (0, 0.125, 0.25, 0.625)] == [0, 0.5, 1, 0.5]
    assert one_cycle(0, 0.0) == 1
    assert [multi_step(p, (0.5, 0.75)) for p in (0.49, 0.5, 0.8)] == pytest.approx([1, 0.1, 0.01])
    assert learning_rate(0.4, CONFIG) == pytest.approx(0.05)
    stepped = CONFIG.model_copy(update={"schedule": "multi_step", "milestones": (0.5,)})
    assert learning_rate(0.6, stepped) == pytest.approx(0.005)


def test_augment_shifts_and_mirrors_whole_images() -> None:
    images = torch.arange(1, 1 + 2 * 4 * 3, dtype=torch.uint8).view(1, 2, 4, 3).repeat(200, 1, 1, 1)
    out = augment(images, crop=1, flip=True, generator=torch.Generator().manual_seed(0))
    padded = F.pad(images[:1], (1, 1, 1, 1))
    allowed = [padded[0, :, i : i + 4, j : j + 3] for i in range(3) for j in range(3)]
    allowed += [view.flip(2) for view in allowed]
    hits = torch.stack([(out == view).flatten(1).all(dim=1) for view in allowed])  # [18, 200]
    assert (hits.sum(dim=0) == 1).all()
    assert (hits.sum(dim=1) > 0).all()


def test_augment_switched_off_changes_nothing() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    assert torch.equal(augment(images, crop=0, flip=False, generator=torch.Generator()), images)
