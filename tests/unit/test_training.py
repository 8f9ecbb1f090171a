"""The engine: what it learns, what it keeps, how it continues."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attacks import ThreatModel, pgd
from epsilens.errors import DataError, NumericError
from epsilens.models.folding import Folded
from epsilens.training import Checkpoints, Epoch, TrainConfig, Trainer, World, fit, precision
from epsilens.training.augment import augment
from epsilens.training.config import Choice
from epsilens.training.fit import exhausted, has_collapsed
from epsilens.training.schedules import cosine, multi_step, one_cycle
from epsilens.types import Samples

PGD = Choice(name="pgd", options={"steps": 2, "step_factor": 1.0, "random_start": True})
CONFIG = TrainConfig(
    source="training",
    recipe=PGD,
    schedule=Choice(name="one_cycle", options={"warmup": 0.4}),
    epochs=3,
    batch_size=8,
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=1e-4,
    averaging=0.9,
    label_smoothing=0.0,
    flip=True,
    crop=1,
    validation_steps=3,
    patience=0,
    precision="auto",
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


def make(config: TrainConfig = CONFIG, epsilon: float = 4.0, seed: int = 0, net: nn.Module | None = None) -> Trainer:
    threat = ThreatModel.of("linf", epsilon)
    return Trainer(net or network(), threat, config, seed=seed, world=World("cpu"), view=Folded)


def trained(folder: Path, config: TrainConfig = CONFIG, epsilon: float = 4.0, seed: int = 0):
    trainer = make(config, epsilon, seed)
    return fit(trainer, samples(32, 0), samples(12, 1), Checkpoints(folder, 0.0), lambda epoch: None)


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


RECIPE_CHOICES = {
    "pgd": PGD,
    "n_fgsm": Choice(name="n_fgsm", options={"noise_factor": 2.0, "step_factor": 1.0}),
    "trades": Choice(name="trades", options={"steps": 2, "step_factor": 1.0, "beta": 6.0}),
}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (trained(tmp_path / str(i), seed=seed)[0] for i, seed in enumerate((0, 0, 1)))
    assert equal(first, again)
    assert not equal(first, other)


class StopError(Exception):
    """Stands for whatever ends a process."""


class StoppingCheckpoints(Checkpoints):
    """Writes a checkpoint after every step, and stops the run after so many."""

    stop_at = 0

    def save(self, epoch: int, step: int, state: dict) -> None:
        super().save(epoch, step, state)
        if 4 * epoch + step == self.stop_at:
            raise StopError


@pytest.mark.parametrize("recipe", ["pgd", "n_fgsm", "trades"])
@pytest.mark.parametrize("stopped_after", [1, 4, 6, 11])  # steps, of 4 an epoch: inside, at the end of an epoch
def test_a_stopped_run_continues_to_the_same_bits(tmp_path: Path, stopped_after: int, recipe: str) -> None:
    config = CONFIG.model_copy(update={"recipe": RECIPE_CHOICES[recipe]})
    whole = make(config)
    kept, whole_history = finish(whole, Checkpoints(tmp_path / "whole", 0.0))
    checkpoints = StoppingCheckpoints(tmp_path / "cut", 0.0)
    checkpoints.stop_at = stopped_after
    with pytest.raises(StopError):
        finish(make(config), checkpoints)
    continued = make(config)
    torch.manual_seed(99)  # another process has another state here
    state, history = finish(continued, Checkpoints(tmp_path / "cut"))
    assert equal(state, kept)
    assert history == whole_history
    assert equal(continued.network.state_dict(), whole.network.state_dict())
    assert equal(continued.average.state_dict(), whole.average.state_dict())


def test_only_what_is_left_is_trained(tmp_path: Path) -> None:
    checkpoints = StoppingCheckpoints(tmp_path, 0.0)
    checkpoints.stop_at = 6
    seen: list[int] = []
    with pytest.raises(StopError):
        finish(make(), checkpoints, seen)
    trainer = make()
    finish(trainer, Checkpoints(tmp_path), seen)
    assert seen == [1, 2, 3]
    assert int(trainer.network[1].num_batches_tracked) == 12  # 4 steps an epoch, each taken once


def finish(trainer: Trainer, checkpoints: Checkpoints, seen: list[int] | None = None):
    def note(epoch: Epoch) -> None:
        if seen is not None:
            seen.append(epoch.epoch)

    return fit(trainer, samples(32, 0), samples(12, 1), checkpoints, note)


def test_networks_with_noise_of_their_own_continue_to_the_same_bits(tmp_path: Path) -> None:
    def noisy() -> Trainer:
        return make(net=nn.Sequential(network()[:5], nn.Dropout(0.5), network()[5]))

    whole, checkpoints = noisy(), StoppingCheckpoints(tmp_path / "cut", 0.0)
    finish(whole, Checkpoints(tmp_path / "whole", 0.0))
    checkpoints.stop_at = 6
    with pytest.raises(StopError):
        finish(noisy(), checkpoints)
    continued = noisy()
    torch.manual_seed(99)
    finish(continued, Checkpoints(tmp_path / "cut"))
    assert equal(continued.network.state_dict(), whole.network.state_dict())


def test_what_is_kept_is_the_average_of_the_first_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([(0.5, 0.3), (0.6, 0.4), (0.7, 0.4)])
    monkeypatch.setattr(Trainer, "validate", lambda self, validation: next(accuracies))
    trainer, averages = make(), []
    state, history = fit(
        trainer,
        samples(32, 0),
        samples(12, 1),
        Checkpoints(tmp_path),
        lambda epoch: averages.append(copy.deepcopy(trainer.average.state_dict())),
    )
    assert [epoch["kept"] for epoch in history] == [False, True, False]
    assert equal(state, averages[1])
    assert not equal(state, averages[2])


def test_a_checkpoint_of_another_network_is_a_clear_error(tmp_path: Path) -> None:
    finish(make(), Checkpoints(tmp_path, 0.0))
    other = nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(DataError, match="not of this network"):
        finish(make(net=other), Checkpoints(tmp_path, 0.0))


def test_when_checkpoints_are_written_changes_nothing(tmp_path: Path) -> None:
    often = trained(tmp_path / "often")
    never = fit(make(), samples(32, 0), samples(12, 1), Checkpoints(tmp_path / "never", torch.inf), lambda epoch: None)
    assert equal(often[0], never[0])
    assert often[1] == never[1]
    assert not (tmp_path / "never").exists()


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, 0, {"epoch": epoch, "weights": torch.full((50,), float(epoch))})
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
        checkpoints.save(epoch, 7, {"epoch": epoch})
    (tmp_path / "epoch-000009-step-000000-aa.pt.partial").write_bytes(b"half")
    assert sorted(p.name[:12] for p in tmp_path.glob("*.pt")) == ["epoch-000003", "epoch-000004"]
    assert checkpoints.load() == {"epoch": 4}
    checkpoints.clear()
    assert checkpoints.load() is None


def test_a_loss_that_is_not_finite_stops_with_its_place_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    broken = network()
    nn.init.constant_(broken[5].bias, torch.nan)
    with pytest.raises(NumericError, match=r"epoch 1, step 1; there is no checkpoint yet"):
        fit(make(net=broken, epsilon=0), samples(32, 0), samples(12, 1), Checkpoints(tmp_path), lambda epoch: None)
    assert list(tmp_path.iterdir()) == []
    trainer = make()

    def spoil(epoch: Epoch) -> None:
        with torch.no_grad():
            trainer.network[5].bias.fill_(torch.inf)

    with pytest.raises(
        NumericError,
        match=r"weight is not finite in epoch 2, step 0; the last good checkpoint is .*epoch-000000-step-000004",
    ):
        fit(trainer, samples(32, 0), samples(12, 1), Checkpoints(tmp_path, 0.0), spoil)


@pytest.mark.parametrize("recipe", ["pgd", "n_fgsm", "trades"])
def test_epsilon_zero_is_plain_training(recipe: str) -> None:
    """One step equals SGD on the images themselves, and no attack is run, whatever the recipe."""
    updates = {"batch_size": 32, "crop": 0, "flip": False, "averaging": 0.0, "recipe": RECIPE_CHOICES[recipe]}
    schedule = Choice(name="one_cycle", options={"warmup": 0.0})
    trainer = make(CONFIG.model_copy(update={**updates, "schedule": schedule}), epsilon=0)
    train = samples(32, 0)
    trainer.epoch(train, samples(12, 1), lambda: None)
    plain = network().to(memory_format=torch.channels_last)  # the same layout: the same order of additions
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    F.cross_entropy(plain.train()(train.pixels()), train.labels).backward()
    optimiser.step()
    for a, b in zip(trainer.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert equal(trainer.average.state_dict(), trainer.network.state_dict())


def test_two_epochs_equal_a_plain_loop() -> None:
    """The engine against the algorithm as a reader would write it, on the same batches."""
    recipe = Choice(name="pgd", options={"steps": 2, "step_factor": 1.5, "random_start": False})
    changes = {"learning_rate": 0.5, "weight_decay": 0.01, "label_smoothing": 0.2, "epochs": 2, "averaging": 0.5}
    config = CONFIG.model_copy(update={**changes, "recipe": recipe, "batch_size": 16})
    trainer, other = make(config, epsilon=8.0), make(config, epsilon=8.0)
    train, epsilon = samples(64, 0), 8 / 255
    plain, average = network(), network()
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01, nesterov=True)
    for epoch in range(2):
        other.number = epoch
        for step, batch in enumerate(list(other._batches(train, 16))):
            plain.eval()
            adversarial = batch.images.clone()
            for _ in range(2):
                adversarial.requires_grad_()
                loss = F.cross_entropy(plain(adversarial), batch.labels)
                (gradient,) = torch.autograd.grad(loss, adversarial)
                moved = adversarial.detach() + 0.75 * epsilon * gradient.sign()
                adversarial = moved.clamp(batch.images - epsilon, batch.images + epsilon).clamp(0, 1)
            plain.train()
            taken = 4 * epoch + step
            optimiser.param_groups[0]["lr"] = 0.5 * one_cycle(taken / 8, warmup=0.4)
            optimiser.zero_grad()
            F.cross_entropy(plain(adversarial), batch.labels, label_smoothing=0.2).backward()
            optimiser.step()
            decay = min(0.5, (1 + taken) / (10 + taken))
            for mean, value in zip(average.state_dict().values(), plain.state_dict().values(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * value if mean.is_floating_point() else value)
        trainer.epoch(train, samples(12, 1), lambda: None)
    for ours, theirs in ((trainer.network, plain), (trainer.average, average)):
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5)


def test_validation_is_of_the_average_on_all_images_under_pgd() -> None:
    trainer = make(CONFIG.model_copy(update={"learning_rate": 0.3, "epochs": 8}), epsilon=4.0)
    for _ in range(7):
        trainer.epoch(samples(64, 0), samples(12, 1), lambda: None)
    trainer.threat = ThreatModel.of("linf", 12)
    validation = samples(601, 2)  # three batches; of every brightness between the classes
    validation.images[:, 0] = torch.linspace(60, 200, 601).to(torch.uint8)[:, None, None]
    validation.labels.copy_(torch.arange(601) > 300)
    expected = []
    images, size = validation.pixels(), 2.5 * trainer.threat.epsilon / 3
    attacked = pgd(trainer.average, images, validation.labels, trainer.threat, images, steps=3, step_size=size)
    for x in (images, attacked):
        expected.append(float((trainer.average(x).argmax(1) == validation.labels).float().mean()))
    assert trainer.validate(validation) == pytest.approx(expected, abs=1 / 601)
    assert 0.05 < expected[1] < expected[0] - 0.05, expected
    assert not torch.equal(trainer.network[5].weight, trainer.average[5].weight)


def test_a_tie_is_not_right() -> None:
    constant = network()
    nn.init.zeros_(constant[5].weight)
    nn.init.zeros_(constant[5].bias)
    assert make(net=constant).validate(samples(12, 1)) == (0, 0)


def test_noise_differs_between_epochs_and_steps() -> None:
    trainer = make()
    draws = [batch.noise() for batch in trainer._batches(samples(32, 0), 8)]
    trainer.number = 1
    draws += [batch.noise() for batch in trainer._batches(samples(32, 0), 8)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert all(draw.min() >= 0 and draw.max() < 1 for draw in draws)


def test_batches_cover_an_epoch_once() -> None:
    trainer = make(CONFIG.model_copy(update={"crop": 0, "flip": False}), epsilon=0)
    train = samples(30, 0)
    batches = list(trainer._batches(train, 8))
    assert [len(batch.labels) for batch in batches] == [8, 8, 8]
    seen = (255 * torch.cat([batch.images for batch in batches])).round().to(torch.uint8).flatten(1)
    matches = (seen[:, None] == train.images.flatten(1)[None]).all(dim=2)
    assert (matches.sum(dim=1) == 1).all()
    assert (matches.sum(dim=0) <= 1).all()
    trainer.number = 1
    other = torch.cat([batch.images for batch in trainer._batches(train, 8)])
    assert not torch.equal(torch.cat([batch.images for batch in batches]), other)


def test_the_average_forgets_its_first_steps() -> None:
    trainer = make(epsilon=0)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.fill_(2.0)
        for parameter in trainer.average.parameters():
            parameter.zero_()
    trainer._update_average(0)  # decay 1/10
    assert all(torch.allclose(p, torch.tensor(1.8)) for p in trainer.average.parameters())
    trainer._update_average(10**6)  # decay 0.9
    assert all(torch.allclose(p, torch.tensor(1.82)) for p in trainer.average.parameters())


def test_the_attack_leaves_the_network_alone() -> None:
    trainer = make(CONFIG.model_copy(update={"learning_rate": 1e-30}), epsilon=8)
    trainer.network.train()
    before = copy.deepcopy(trainer.network.state_dict())
    batch = next(trainer._batches(samples(32, 0), 8))
    trainer._loss(nn.Identity(), trainer._attack_predict, batch, trainer.threat, lambda images, _: images.sum())
    assert equal(before, trainer.network.state_dict())
    assert all(module.training for module in trainer.network.modules())
    assert all(p.grad is None and p.requires_grad for p in trainer.network.parameters())


def test_schedules() -> None:
    assert [one_cycle(p, warmup=0.25) for p in (0, 0.125, 0.25, 0.625)] == [0, 0.5, 1, 0.5]
    assert one_cycle(0, warmup=0.0) == 1
    assert [multi_step(p, milestones=(0.5, 0.75)) for p in (0.49, 0.5, 0.8)] == pytest.approx([1, 0.1, 0.01])
    assert [cosine(p) for p in (0, 1 / 3, 0.5, 1)] == pytest.approx([1, 0.75, 0.5, 0])


def test_the_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    schedule = Choice(name="multi_step", options={"milestones": [0.5]})
    _, history = trained(tmp_path, CONFIG.model_copy(update={"schedule": schedule, "epochs": 2}))
    assert [epoch["learning_rate"] for epoch in history] == pytest.approx([0.05, 0.005])


def entry(epoch: int, robust: float, clean: float = 0.8) -> dict:
    return {"epoch": epoch, "validation_accuracy": clean, "validation_robust_accuracy": robust}


@pytest.mark.parametrize(
    ("robust", "clean", "images", "collapsed"),
    [
        (0.05, 0.8, 1000, True),
        (0.19, 0.73, 1000, True),
        (0.21, 0.8, 1000, False),  # more than half is left
        (0.05, 0.5, 1000, False),  # all is lost: no overfitting to an attack
        (0.05, 0.8, 10, False),  # four images of ten, three less: chance
    ],
)
def test_catastrophic_overfitting_is_told_from_other_falls(
    robust: float, clean: float, images: int, collapsed: bool
) -> None:
    history = [entry(1, 0.3), entry(2, 0.4), entry(3, 0.35)]
    epoch = Epoch(4, 1.0, 0.1, clean, robust)
    assert has_collapsed(history, epoch, images) == collapsed
    assert not has_collapsed([], epoch, images)


def test_catastrophic_overfitting_is_reported_and_the_epoch_before_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracies = iter([(0.7, 0.3), (0.8, 0.4), (0.9, 0.0)])
    monkeypatch.setattr(Trainer, "validate", lambda self, validation: next(accuracies))
    _, history = fit(make(), samples(32, 0), samples(100, 1), Checkpoints(tmp_path), lambda epoch: None)
    assert [epoch["catastrophic_overfitting"] for epoch in history] == [False, False, True]
    assert [epoch["kept"] for epoch in history] == [False, True, False]
    assert "fell from 0.400 (epoch 2) to 0.000 (epoch 3)" in capsys.readouterr().err


def test_patience_ends_a_training_that_gains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not exhausted([entry(1, 0.5), entry(2, 0.4)], 0)
    assert not exhausted([entry(1, 0.5), entry(2, 0.4)], 2)
    assert exhausted([entry(1, 0.5), entry(2, 0.4), entry(3, 0.5)], 2)
    monkeypatch.setattr(Trainer, "validate", lambda self, validation: (0.5, 0.5))
    _, history = trained(tmp_path, CONFIG.model_copy(update={"epochs": 9, "patience": 3}))
    assert len(history) == 4


def test_precision_is_float32_on_a_cpu_unless_asked_for(tmp_path: Path) -> None:
    assert precision(CONFIG, "cpu") == "float32"
    half = CONFIG.model_copy(update={"precision": "bfloat16"})
    assert precision(half, "cpu") == "bfloat16"
    state, _ = trained(tmp_path / "half", half)
    whole, _ = trained(tmp_path / "whole")
    assert all(value.dtype == whole[name].dtype for name, value in state.items())
    assert not equal(state, whole)
    for name, value in state.items():  # a few steps in another precision end near by
        torch.testing.assert_close(value, whole[name], rtol=0.1, atol=0.05)


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
