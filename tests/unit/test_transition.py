"""Where the cue is no longer used, and which measures move there: in closed form."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from epsilens import artifacts
from epsilens.errors import ConfigError, DataError
from epsilens.reporting.transition import (
    Grid,
    compare,
    crossing,
    let_go,
    reliance,
    seed_orders,
    separation,
    sheet,
    student,
)
from stages import transition

EPSILONS = [0.0, 1.0, 2.0, 4.0, 8.0]
# Seeds part at 1 and 2: there some networks use the cue and some do not.
RELIANCE = np.array([[1, 1, 1], [1, 0.2, 1], [0.2, 0, 0.8], [0, 0, 0], [0, 0, 0.0]])
FIVE = RELIANCE[:, [0, 1, 2, 0, 1]]


def grid(measure: np.ndarray, used: np.ndarray = RELIANCE, cue: float = 8.0) -> Grid:
    return Grid(cue, EPSILONS, used, {"m": measure})


def ask(*grids: Grid, better: str | None = "higher") -> dict:
    return compare(grids, "m", better, alpha=0.05, seed=0)


def test_reliance_is_the_lost_part_of_what_is_above_chance() -> None:
    with_cue, without = np.array([1.0, 1.0, 0.6, 0.6, 0.1]), np.array([0.1, 1.0, 0.35, 0.7, 0.1])
    np.testing.assert_allclose(reliance(with_cue, without, 10, 1000), [1, 0, 0.5, 0, np.nan])


def test_a_network_that_may_be_at_chance_has_no_reliance() -> None:
    """Of 1,000 images and ten classes, three standard errors above chance are .128."""
    found = reliance(np.array([0.105, 0.128, 0.129]), np.array([0.095, 0.1, 0.1]), 10, 1000)
    assert np.isnan(found[:2]).all()
    assert found[2] == 1


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0, 0, 0, 1, 1], 3),
        ([1, 1, 0, 0, 0], 2),
        ([0, 0.5, 0.5, 0.5, 1], 1),
        ([0, 0.25, 0.75, 1, 1], 2),
        ([0, 2, 1, 1, 1], 1),  # the first time counts
        ([1, 2, 3, 2, 1], np.nan),
        ([0, np.nan, 1, 1, 1], np.nan),
    ],
)
def test_a_crossing_is_the_step_in_which_half_of_the_way_is_gone(curve: list[float], expected: float) -> None:
    assert crossing(np.array(curve, dtype=float)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("reliance", "expected"),
    [
        ([1, 0.9, 0.5, 0, 0], 2),
        ([0.6, 0.55, 0.4, 0, 0], 2),  # a half of the reliance, not of its way
        ([0.004, 0, 0.003, 0, 0], np.nan),  # never used
        ([1, 1, 1, 1, 0.98], np.nan),  # used to the end
        ([1, np.nan, 0.2, 0, 0], 2),
    ],
)
def test_a_cue_is_let_go_where_it_was_used_and_is_no_longer(reliance: list[float], expected: float) -> None:
    assert let_go(np.array(reliance)) == pytest.approx(expected, nan_ok=True)


def test_the_interval_of_a_mean_is_students() -> None:
    mean, low, high = student(np.array([1.0, 2.0, 3.0, np.nan]), 0.95)
    assert mean == 2
    assert (high - mean, mean - low) == pytest.approx((4.302653 / np.sqrt(3),) * 2, rel=1e-6)
    assert np.isnan(student(np.array([1.0]), 0.95)[1])


def test_a_measure_that_follows_the_cue_moves_with_it() -> None:
    found = ask(grid(4 - FIVE, FIVE), grid(1 - FIVE, FIVE, cue=4.0))
    assert (found["same"], found["earlier"], found["later"]) == (10, 0, 0)
    assert found["p_same"] == pytest.approx(4 / 120)  # steps 2, 1, 3, 2, 1: two pairs of seeds may be exchanged
    assert (found["verdict"], found["auroc"], found["auroc_within"]) == ("with the cue", 1.0, 1.0)
    assert found["change"] == pytest.approx(1)


def test_the_same_seeds_under_other_cues_are_no_new_evidence() -> None:
    """What a seed has of luck, the same initial weights and order of batches, it has with every cue."""
    once, thrice = (ask(*[grid(1 - FIVE, FIVE, cue=float(n)) for n in range(count)]) for count in (1, 3))
    assert [once[p] for p in ("p_same", "p_within")] == [thrice[p] for p in ("p_same", "p_within")]


def test_seeds_that_all_cross_in_one_step_say_nothing_of_where() -> None:
    """Within a step of the grid, crossings that are far apart look alike."""
    step = np.array([1, 0, 0, 0, 0.0])[:, None] + np.zeros(3)
    found = ask(grid(1 - step + [0, 1e-3, 2e-3], step))
    assert (found["same"], found["p_same"], found["verdict"]) == (3, 1.0, "undecided")


def test_a_measure_that_mostly_moves_elsewhere_does_not_move_with_the_cue() -> None:
    """Two of six seeds cross where they let go of the cue, which chance gives in 1 of 30; the others later."""
    own, curve = np.array([1, 2, 3, 4, 5, 6]), np.array([1, 2, 7, 7, 7, 7])
    used, measure = ((np.arange(8)[:, None] < steps).astype(float) for steps in (own, curve))
    found = compare([Grid(8.0, range(8), used, {"m": 1 - measure})], "m", None, alpha=0.05, seed=0)
    assert (found["same"], found["earlier"], found["later"]) == (2, 0, 4)
    assert found["p_same"] == pytest.approx(1 / 30)
    assert found["verdict"] == "undecided"


def test_the_orders_are_all_of_few_seeds_and_drawn_of_many() -> None:
    assert len({tuple(order) for order in seed_orders(5, 0)}) == 120
    many = seed_orders(9, 0)
    assert many.shape == (10_000, 9)
    assert many[0].tolist() == list(range(9))
    assert (np.sort(many, axis=1) == np.arange(9)).all()


def test_the_direction_of_better_is_heeded() -> None:
    assert ask(grid(RELIANCE), better="lower")["auroc"] == 1.0
    assert ask(grid(RELIANCE), better="higher")["auroc"] == 0.0


def test_a_measure_of_robustness_alone_tells_no_networks_of_one_epsilon_apart() -> None:
    only = ask(grid(np.array([0, 0.1, 0.5, 0.9, 1.0])[:, None] + 0 * RELIANCE))
    assert only["auroc"] > 0.9  # all of it by epsilon
    assert only["auroc_within"] == 0.5
    assert only["p_within"] == 1.0


def test_a_measure_that_stays_shows_no_change() -> None:
    stays = np.random.default_rng(0).normal(size=(5, 3))
    stays[-1] = stays[0] + [0.1, -0.1, 0.01]
    assert ask(grid(stays))["verdict"] == "no change shown"
    assert ask(grid(stays[:, :1], RELIANCE[:, :1]))["verdict"] == "undecided"  # one seed
    assert ask(grid(0 * RELIANCE))["verdict"] == "no change shown"  # nor does one that is the same for every network


def test_changes_that_cancel_over_cues_are_no_standstill() -> None:
    up, down = (grid(sign * (1 - RELIANCE), cue=cue) for sign, cue in ((1, 8.0), (-1, 4.0)))
    found = ask(up, down)
    assert found["change"] == pytest.approx(0)
    assert found["verdict"] != "no change shown"


def test_a_seed_without_a_crossing_is_counted_as_missing() -> None:
    never = RELIANCE.copy()
    never[:, 2] = 1.0
    found = ask(grid(1 - RELIANCE, never))
    assert found["same"] + found["earlier"] + found["later"] == 2


def test_within_epsilons_only_networks_of_one_epsilon_are_compared() -> None:
    measure = np.array([[0, 0, 0], [10, 9, 11], [1, 5, 2], [3, 3, 3], [4, 4, 4.0]])
    # at 1 the one without the cue is below both others (0 of 2 pairs), at 2 the two without: 1 and 5 against 2
    found = ask(grid(measure))
    assert found["pairs"] == 4
    assert found["auroc_within"] == pytest.approx(1 / 4)


def test_the_exchange_is_of_whole_seeds() -> None:
    """By hand, for every order of the seeds: their reliance at all epsilons goes with another seed's values."""
    values = np.random.default_rng(0).normal(size=FIVE.shape)
    found = ask(grid(values, FIVE))

    def auroc(used: np.ndarray) -> float:
        won = [
            float(row[i] > row[j])
            for row, use in zip(values, used, strict=True)
            for i in range(5)
            for j in range(5)
            if use[i] <= 0.5 < use[j]
        ]
        return float(np.mean(won))

    drawn = np.array([auroc(FIVE[:, list(order)]) for order in permutations(range(5))])
    assert found["auroc_within"] == pytest.approx(auroc(FIVE))
    assert found["p_within"] == pytest.approx(np.mean(abs(drawn - 0.5) >= abs(auroc(FIVE) - 0.5) - 1e-12))


def one(values: list[float], used: list[float]) -> tuple[float, int]:
    shares, pairs = separation([(np.array(values), np.array([used]))])
    return float(shares[0]), pairs


def test_ties_are_half_of_a_pair_and_unknown_values_are_left_out() -> None:
    assert one([1, 1, 2], [0, 1, 1]) == (0.25, 2)
    assert one([1, np.nan, 3], [0, 0, 1]) == (0, 1)
    assert one([4, 2, 3], [0, np.nan, 1]) == (1, 1)
    share, pairs = one([1, 2], [0, 0])
    assert (np.isnan(share), pairs) == (True, 0)
    alone = ask(grid(RELIANCE, 0 * RELIANCE))
    assert np.isnan([alone["auroc"], alone["p_within"]]).all()


def test_the_figure_has_a_line_a_cue_and_is_the_same_each_time() -> None:
    grids = [grid(1 - RELIANCE), grid(1 - RELIANCE, cue=4.0)]
    drawn = [sheet(grids, {"m": ("a measure", "higher is better")}, "linf").svg() for _ in range(2)]
    assert drawn[0] == drawn[1]
    for label in (b"a measure", b"higher is better", b"Reliance on the cue", b"cue of 4/255", b"cue of 8/255"):
        assert drawn[0].count(b"<!-- " + label + b" -->") == 1, label


# --- the tool


def record(root: Path, root_params: Path, cue: float, epochs: int = 6) -> None:
    """What `make record` leaves of a study with a cue, as far as it is read."""
    root.mkdir(parents=True)
    text = root_params.read_text(encoding="utf-8").replace("epochs: 6", f"epochs: {epochs}")
    (root / "params.yaml").write_text(
        text.replace("name: shapes\n", f"name: cue{cue:g}\n", 1).replace(
            "cue_amplitude_255: 8.0", f"cue_amplitude_255: {cue}"
        ),
        encoding="utf-8",
    )
    artifacts.write_json(root / "provenance.json", {"data": {"splits": {"test": {"per_class": [10] * 10}}}})
    networks, means = [], []
    for e, epsilon in enumerate(EPSILONS):
        for seed in range(3):
            for split, accuracy in (("test", 1.0), ("test_without_cue", 1.0 - 0.9 * RELIANCE[e, seed])):
                known = {"epsilon": epsilon, "seed": seed, "split": split, "attack": "clean", "gate": "sound"}
                known |= {"accuracy": accuracy, "n_images": 1000}
                networks += [known, known | {"attack": "pgd", "accuracy": 0.0}]
            for metric in ("gini", "direction_sensitivity", "relevance_mass_corrected", "road_gap"):
                score = {"attribution": "gradient", "metric": metric, "mean": 1 - RELIANCE[e, seed], "n": 64}
                means.append({"epsilon": epsilon, "seed": seed} | score)
    artifacts.write_table(root / "networks.csv", networks)
    artifacts.write_rows(root / "scores.parquet", {name: [row[name] for row in means] for name in means[0]})


def test_recorded_studies_become_a_table_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for cue in (4.0, 8.0):
        record(Path(f"metrics/cue{cue:g}"), root / "studies/shapes.yaml", cue)
    monkeypatch.setattr("sys.argv", ["transition", "cue4", "cue8"])
    transition.main()
    table = Path("metrics/cue/transition.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:2] for line in table[1:]] == [
        ["gradient", name] for name in ("gini", "direction_sensitivity", "relevance_mass_corrected", "road_gap")
    ]
    assert ",1.0,1.0," in table[1]  # auroc, auroc_within
    assert ",0.0,0.0," in table[2]  # there lower is better
    networks = Path("metrics/cue/networks.csv").read_text(encoding="utf-8").splitlines()
    assert len(networks) == 1 + 2 * 15
    assert Path("metrics/cue/transition.svg").is_file()


def test_studies_that_cannot_be_compared_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    record(Path("metrics/a"), root / "studies/shapes.yaml", 8.0)
    record(Path("metrics/b"), root / "studies/shapes.yaml", 4.0, epochs=7)
    for names, kind, message in (
        (["a", "b"], ConfigError, "b: train differ from those of a"),
        (["a", "c"], DataError, r"metrics/c/networks\.csv: is missing; `make record` writes it"),
    ):
        monkeypatch.setattr("sys.argv", ["transition", *names])
        with pytest.raises(kind, match=message):
            transition.main()
    table = Path("metrics/a/networks.csv")
    table.write_text(table.read_text(encoding="utf-8").replace("test_without_cue", "official_test"), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["transition", "a"])
    with pytest.raises(DataError, match="is no study of `shapes`"):
        transition.main()
