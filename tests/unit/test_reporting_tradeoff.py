from dataclasses import replace

import numpy as np
import pytest

from epsilens.errors import DataError
from epsilens.reporting.findings import UNDEFINED, draw
from epsilens.reporting.tradeoff import NO_KNEE, knee, pareto, recommend, trade_off

NAN = np.nan
ACCURACY = np.array([0.9, 0.85, 0.6, 0.5, 0.55])
QUALITY = np.array([0.1, 0.7, 0.6, 0.9, 0.8])


def sample_of(means, *, n_seeds=3, n_images=40, spread=0.0, stream=0):
    rng = np.random.default_rng(stream)
    images = rng.normal(size=(1, 1, n_images)) * 0.01
    seeds = np.arange(n_seeds)[None, :, None] - (n_seeds - 1) / 2
    values = np.asarray(means, dtype=float)[:, None, None] + images - images.mean() + spread * seeds
    return draw(values[..., None], samples=1000, seed=0, confidence=0.95, stream=stream)[0]


def test_front_is_what_nothing_dominates():
    assert pareto(ACCURACY[None], QUALITY[None])[0].tolist() == [True, True, False, True, True]
    equal = pareto(np.array([[0.5, 0.5, 0.5]]), np.array([[0.2, 0.2, 0.1]]))[0]
    assert equal.tolist() == [True, True, False]
    gap = pareto(np.array([[NAN, 0.5, 0.4]]), np.array([[0.9, NAN, 0.1]]))[0]
    assert gap.tolist() == [False, False, True]


def test_knee_is_farthest_from_the_chord_of_the_front():
    """By the distance of each point from the line through the two ends, in scaled axes."""
    front = [0, 1, 3, 4]
    points = np.stack([(v - v.min()) / (v.max() - v.min()) for v in (ACCURACY[front], QUALITY[front])], axis=1)
    start, end = points[0], points[2]
    chord = (end - start) / np.linalg.norm(end - start)
    distances = [abs(chord[0] * (p - start)[1] - chord[1] * (p - start)[0]) for p in points]
    assert knee(ACCURACY[None], QUALITY[None])[0] == front[int(np.argmax(distances))] == 1


def test_knee_does_not_depend_on_units():
    assert knee(100 * ACCURACY[None] - 7, QUALITY[None] / 1000)[0] == 1


@pytest.mark.parametrize(
    ("accuracy", "quality"),
    [
        ([0.9, 0.5], [0.1, 0.8]),  # two points
        ([0.9, 0.5], [0.8, 0.1]),  # one point on the front
        ([0.9, 0.7, 0.5], [0.1, 0.2, 0.3]),  # straight
        ([0.9, 0.6, 0.5], [0.1, 0.15, 0.8]),  # sags
        ([NAN, NAN, NAN], [0.1, 0.2, 0.3]),
    ],
)
def test_fronts_without_a_knee(accuracy, quality):
    assert knee(np.array([accuracy]), np.array([quality]))[0] == NO_KNEE


def test_trade_off_of_clear_means_is_certain():
    found = trade_off(sample_of(ACCURACY, stream=1), sample_of(QUALITY))
    assert found.front.tolist() == [True, True, False, True, True]
    assert found.knee == found.knee_low == found.knee_high == 1
    assert found.knee_share.tolist() == [0, 1, 0, 0, 0]
    assert (found.n_seeds, found.scope, found.reason) == (3, "training", "")


def test_trade_off_of_close_means_says_so():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 1, 30)) * 0.5
    quality = np.array([0.1, 0.6, 0.62, 0.9, 0.8])[:, None, None] + images - images.mean(axis=2, keepdims=True)
    sample = draw(quality[..., None], samples=1000, seed=0, confidence=0.95)[0]
    accuracy = sample_of([0.9, 0.85, 0.83, 0.5, 0.55], n_seeds=1, stream=1)
    found = trade_off(accuracy, sample)
    with_knee = knee(accuracy.replicates, sample.replicates) != NO_KNEE
    assert found.knee_share.sum() == pytest.approx(with_knee.mean())
    assert found.knee_share.max() < 0.9
    assert found.knee_low < found.knee_high
    assert found.scope == "these networks"


def test_draws_of_seeds_are_those_of_both():
    """Accuracy and quality rise and fall together over seeds: what is lost in one is gained in the other, each time."""
    accuracy, quality = sample_of([0.9, 0.8], spread=0.05, stream=1), sample_of([0.2, 0.5], spread=-0.05)
    assert np.corrcoef(accuracy.replicates[:, 0], quality.replicates[:, 0])[0, 1] < -0.95


def test_recommended_is_the_smallest_epsilon_that_gains_enough_for_little():
    samples = sample_of(ACCURACY, stream=1), sample_of(QUALITY)
    found = recommend(*samples, gain=0.55, loss=0.36)
    assert found.index == 1
    assert found.recommended_share.tolist() == [0, 1, 0, 0, 0]
    assert found.qualifies_share.tolist() == [0, 1, 0, 0, 1]
    later = recommend(*samples, gain=0.65, loss=0.36)
    assert later.index == 4
    nobody = recommend(*samples, gain=0.65, loss=0.1)
    assert nobody.index is None
    assert nobody.none_share == 1
    assert recommend(*samples, gain=0.0, loss=0.0).index is None  # the smallest itself is no recommendation


def test_both_must_speak_of_training():
    alone = sample_of(ACCURACY, n_seeds=1, stream=1)
    for found in (trade_off(alone, sample_of(QUALITY)), recommend(sample_of(QUALITY), alone, gain=0, loss=1)):
        assert (found.scope, found.n_seeds) == ("these networks", 1)


def test_recommended_at_the_edge_holds_in_half_of_the_replicates():
    quality = sample_of([0.0, 0.3])
    rng = np.random.default_rng(3)
    images = rng.normal(size=(2, 1, 50)) * 0.2
    values = np.array([0.9, 0.8])[:, None, None] + images - images.mean(axis=2, keepdims=True)
    accuracy = draw(values[..., None], samples=1000, seed=0, confidence=0.95, stream=1)[0]
    found = recommend(accuracy, quality, gain=0.1, loss=0.1000001)
    assert found.index == 1
    assert found.qualifies_share[1] == pytest.approx(0.5, abs=0.06)
    assert found.recommended_share.sum() + found.none_share == pytest.approx(1)


def test_samples_that_do_not_belong_together_are_refused_and_undefined_ones_reported():
    with pytest.raises(DataError, match="same epsilons"):
        trade_off(sample_of([0.9, 0.8]), sample_of([0.1, 0.2, 0.3]))
    with pytest.raises(DataError, match="same epsilons"):
        recommend(sample_of([0.9, 0.8]), sample_of([0.1, 0.2, 0.3]), gain=0, loss=0)
    with pytest.raises(DataError, match="seed 1"):
        trade_off(sample_of([0.9, 0.8]), replace(sample_of([0.1, 0.2]), seed=1))
    found = trade_off(sample_of([0.9, 0.8, 0.7]), sample_of([0.1, NAN, 0.3]))
    assert found.reason == UNDEFINED


def test_of_two_with_one_thing_equal_the_better_one_dominates():
    assert pareto(np.array([[0.5, 0.4]]), np.array([[0.2, 0.2]]))[0].tolist() == [True, False]
    assert pareto(np.array([[0.5, 0.5]]), np.array([[0.1, 0.2]]))[0].tolist() == [False, True]


def test_the_knees_interval_leaves_out_the_tails_of_the_replicates():
    """Of 1000 replicates 30 have their knee at 1, 940 at 2, 30 at 3; and 20 are without one."""
    accuracy, quality = np.tile([1.0, 0.9, 0.9, 0.9, 0.0], (1020, 1)), np.tile([0.0, 0.1, 0.1, 0.1, 1.0], (1020, 1))
    for index, rows in {1: slice(0, 30), 2: slice(30, 970), 3: slice(970, 1000)}.items():
        quality[rows, index] = 0.8
    accuracy[1000:, 1:4] = 0.0
    pair = [replace(sample_of([1.0, 0.9, 0.9, 0.9, 0.0]), replicates=drawn) for drawn in (accuracy, quality)]
    for confidence, ends in {0.95: (1, 3), 0.93: (2, 2)}.items():
        found = trade_off(*(replace(sample, confidence=confidence) for sample in pair))
        assert (found.knee_low, found.knee_high) == ends
        assert found.knee_share.tolist() == pytest.approx([0, 30 / 1020, 940 / 1020, 30 / 1020, 0])
