"""The table of experiments, from rows such as `dvc exp show --csv` has."""

from __future__ import annotations

from stages.show import leaf, number, table

ROWS = [
    {"rev": "workspace", "typ": "baseline", "clean.standard": "0.9887", "clean.robust": "0.377"},
    {"rev": "main", "typ": "baseline", "clean.standard": "0.9887", "clean.robust": ""},
    {"rev": "1a2b3c4", "typ": "branch_commit", "Experiment": "nearer", "State": "Success", "a.samples": "2"},
    {"rev": "5d6e7f8", "typ": "branch_commit", "Experiment": "broken", "State": "Failed"},
]
COLUMNS = ("Experiment", "rev", "typ", "parent", "State", "clean.standard", "clean.robust", "a.samples", "a.seed")


def rows() -> list[dict[str, str]]:
    """As DVC fills them: one that failed has no parameters."""
    filled = [dict.fromkeys(COLUMNS, "") | {"a.samples": "8", "a.seed": "0"} | row for row in ROWS]
    return [*filled[:3], filled[3] | {"a.samples": "", "a.seed": ""}]


def test_what_differs_stands_before_the_metrics_and_what_does_not_is_left_out() -> None:
    lines = table(rows()).splitlines()
    assert lines == [
        "experiment         samples  clean",
        "-----------------  -------  -----------",
        "workspace          8        .989 → .377",
        "main               8        .989 → –",
        "  nearer           2        –",
        "  broken (failed)           –",
    ]


def test_a_value_that_is_too_long_is_cut_and_a_long_name_broken() -> None:
    long = [{**row, "relevance_mass.robust": "-0.5", "a.seed": str(list(range(20)))} for row in rows()[:2]]
    long[1]["a.seed"] = "0"
    lines = table(long).splitlines()
    assert lines[0].split() == ["experiment", "seed", "clean", "relevance"]
    assert lines[1].split() == ["mass"]
    assert "[0, 1, 2, 3, 4, 5, 6, 7…  " in lines[3]
    assert lines[3].endswith("– → -.500")


def test_a_parameter_has_as_many_words_as_set_it_off() -> None:
    known = ["train.seed", "score.seed", "sweep.epsilons"]
    assert [leaf(name, known) for name in known] == ["train.seed", "score.seed", "epsilons"]
    assert leaf("seed", ["seed", "train.seed"]) == "seed"


def test_numbers_are_short() -> None:
    assert [number(text) for text in ("0.12345", "-0.5", "1.0", "12.34567", "0", "")] == [
        ".123",
        "-.500",
        "1.0",
        "12.345",
        ".000",
        "–",
    ]
