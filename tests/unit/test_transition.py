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
    matches,
    permutation_p,
    reliance,
    separation,
    sheet,
    stratum,
    student,
)
from stages import transition

EPSILONS = [0.0, 1.0, 2.0, 4.0, 8.0]
# Seeds part at 1 and 2: there some networks use the cue and some do not.
RELIANCE = np.array([[1, 1, 1], [1, 0.2, 1], [0.2, 0, 0.8], [0, 0, 0], [0, 0, 0.0]])


def grid(measure: np.ndarray, used: np.ndarray = RELIANCE, cue: float = 8.0) -> Grid:
    return Grid(cue, EPSILONS, used, {"m": measure})


def ask(*grids: Grid, better: str | None = "higher") -> dict:
    return compare(grids, "m", better, alpha=0.05)


def test_reliance_is_the_lost_part_of_what_is_above_chance() -> None:
    with_cue, without = np.array([1.0, 1.0, 0.6, 0.6, 0.1]), np.array([0.1, 1.0, 0.35, 0.7, 0.1])
    np.testing.assert_allclose(reliance(with_cue, without, 10), [1, 0, 0.5, 0, np.nan])


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


def test_the_interval_of_a_mean_is_students() -> None:
    mean, low, high = student(np.array([1.0, 2.0, 3.0, np.nan]), 0.95)
    assert mean == 2
    assert (high - mean, mean - low) == pytest.approx((4.302653 / np.sqrt(3),) * 2, rel=1e-6)
    assert np.isnan(student(np.array([1.0]), 0.95)[1])


def test_a_measure_that_follows_the_cue_moves_with_it() -> None:
    found = ask(grid(3 - RELIANCE), grid(1 - RELIANCE, cue=4.0))
    assert (found["same"], found["earlier"], found["later"]) == (6, 0, 0)
    assert found["p_same"] == pytest.approx(1 / 36)  # seeds cross in steps 2, 1 and 3: one of 3! pairings, for each cue
    assert (found["verdict"], found["auroc"], found["auroc_within"]) == ("with the cue", 1.0, 1.0)
    assert found["change"] == pytest.approx(1)


def test_seeds_that_all_cross_in_one_step_say_nothing_of_where() -> None:
    """Within a step of the grid, crossings that are far apart look alike."""
    step = np.array([1, 0, 0, 0, 0.0])[:, None] + np.zeros(3)
    found = ask(grid(1 - step + [0, 1e-3, 2e-3], step))
    assert (found["same"], found["p_same"], found["verdict"]) == (3, 1.0, "undecided")


@pytest.mark.parametrize("first", [[1, 1, 2, 3], [1, 2, 3, 4], [1, 1, 1, 1], [1, 1, 2, 2]])
@pytest.mark.parametrize("second", [[1, 1, 2, 3], [4, 3, 2, 1], [5, 6, 7, 8], [2, 2, 2, 1]])
def test_the_chances_of_equal_pairs_are_those_of_all_pairings(first: list[int], second: list[int]) -> None:
    counts = [sum(a == b for a, b in zip(first, order, strict=True)) for order in permutations(second)]
    found = matches(np.array(first), np.array(second))
    expected = np.bincount(counts, minlength=len(found)) / len(counts)
    np.testing.assert_allclose(np.pad(found, (0, len(expected) - len(found))), expected, atol=1e-12)


def test_the_direction_of_better_is_heeded() -> None:
    assert ask(grid(RELIANCE), better="lower")["auroc"] == 1.0
    assert ask(grid(RELIANCE), better="higher")["auroc"] == 0.0


def test_a_measure_of_robustness_alone_moves_elsewhere_and_tells_no_networks_of_one_epsilon_apart() -> None:
    wobble = np.array([0.0, 1e-3, 2e-3])  # seeds that differ, but not by their use of the cue
    late = np.array([0, 0, 0, 0.01, 1.0])[:, None] + wobble
    early = RELIANCE[:, [1, 1, 1]] * [1, 0.99, 0.98]
    found = ask(grid(late, early), grid(late, early, cue=4.0))
    assert (found["same"], found["earlier"], found["later"]) == (0, 0, 6)
    assert found["p_order"] == pytest.approx(2 / 64)
    assert found["verdict"] == "earlier or later"
    only = ask(grid(np.array([0, 0.1, 0.5, 0.9, 1.0])[:, None] + 0 * RELIANCE))
    assert only["auroc"] > 0.9  # all of it by epsilon
    assert only["auroc_within"] == 0.5
    assert only["p_within"] == 1.0


def test_a_measure_that_stays_does_not_move() -> None:
    stays = np.random.default_rng(0).normal(size=(5, 3))
    stays[-1] = stays[0] + [0.1, -0.1, 0.01]
    assert ask(grid(stays))["verdict"] == "does not move"
    assert ask(grid(stays[:, :1], RELIANCE[:, :1]))["verdict"] == "undecided"  # one seed


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


def test_the_permutation_is_within_strata() -> None:
    parts = [(np.array([3.0, 1, 2]), np.array([0.0, 1, 1])), (np.array([5.0, 4, 9]), np.array([0.0, 1, 0]))]
    strata = [stratum(*part) for part in parts]
    assert separation(strata) == 1.0
    scores = []
    for first in set(permutations(parts[0][1])):
        for second in set(permutations(parts[1][1])):
            scores.append(separation([stratum(parts[0][0], np.array(first)), stratum(parts[1][0], np.array(second))]))
    exact = np.mean(np.abs(np.array(scores) - 0.5) >= 0.5)
    assert exact == pytest.approx(2 / 9)
    assert permutation_p(strata) == pytest.approx(exact)


def test_ties_are_half_of_a_pair() -> None:
    tied = [stratum(np.array([1.0, 1, 2]), np.array([0.0, 1, 1]))]
    assert separation(tied) == 0.25
    assert permutation_p(tied) == 1.0  # 1/4, 1/4 and 1


def test_unknown_values_are_left_out_and_one_side_is_no_comparison() -> None:
    assert stratum(np.array([1.0, np.nan, 3]), np.array([0.0, 0, 1])).pairs == 1
    assert stratum(np.array([1.0, 2, 3]), np.array([0.0, np.nan, 1])).pairs == 1
    alone = [stratum(np.array([1.0, 2]), np.array([0.0, 0]))]
    assert np.isnan(separation(alone))
    assert np.isnan(permutation_p(alone))


def test_the_figure_has_a_panel_a_cue_and_is_the_same_each_time() -> None:
    grids = [grid(1 - RELIANCE), grid(1 - RELIANCE, cue=4.0)]
    drawn = [sheet(grids, {"m": "a measure"}, "linf").svg() for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"<?xml")


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
                known["accuracy"] = accuracy
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
    assert ",with the cue,1.0,1.0," in table[1]  # verdict, auroc, auroc_within
    assert ",with the cue,0.0,0.0," in table[2]  # there lower is better
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
