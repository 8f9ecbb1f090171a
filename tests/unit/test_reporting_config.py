import pytest

from epsilens.config import section
from epsilens.errors import ConfigError
from epsilens.reporting.config import ReportConfig, StudyConfig, SweepConfig
from tests.options import CLAIMS

PLAUSIBLE = {"conciseness": "gini", "stability": "sensitivity", "relevance": "mass", "control": "random"}
REPORT = {"attribution": "gradient", "metrics": ["gini"], "bootstrap": 2000, "seed": 0, "confidence": 0.95}
RECOMMEND = {"metric": "sensitivity", "gain": 0.1, "accuracy_loss": 0.1}
REPORT |= {"plausible": PLAUSIBLE, "claims": CLAIMS, "recommend": RECOMMEND}


def sweep(epsilons, seeds=(0,)):
    return section({"sweep": {"epsilons": epsilons, "seeds": list(seeds)}}, "sweep", SweepConfig)


def test_the_grid_has_the_text_that_dvc_renders():
    grid = sweep([8, 0, 0.25, 4.0, 1e-5], (1, 0)).grid()
    assert grid[:4] == [("8", 1), ("8", 0), ("0", 1), ("0", 0)]
    assert [epsilon for epsilon, _ in grid[::2]] == ["8", "0", "0.25", "4.0", "1e-05"]


@pytest.mark.parametrize("wrong", [-1, -0.5, -0.0, float("nan"), float("inf"), True, "8", None, [1]])
def test_an_epsilon_that_is_no_budget_is_one_problem_with_its_place(wrong):
    with pytest.raises(ConfigError) as caught:
        sweep([0, wrong])
    assert str(caught.value).startswith("params.yaml: sweep.epsilons.1: found ")
    assert "expected a finite number that is 0 or above" in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("epsilons", [[1, 4, 1], [0, 0.0], [2, 2.0]])
def test_equal_epsilons_are_refused(epsilons):
    with pytest.raises(ConfigError, match="no entry twice"):
        sweep(epsilons)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [0.5], [True]])
def test_seeds_are_different_natural_numbers(seeds):
    with pytest.raises(ConfigError, match=r"sweep\.seeds"):
        sweep([0], seeds)


def test_an_empty_grid_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        sweep([])


def test_report_section():
    assert section({"report": REPORT}, "report", ReportConfig).metrics == ("gini",)


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": []},
        {"metrics": ["a", "a"]},
        {"metrics": ["a", "b", "c", "d", "e"]},
        {"bootstrap": 99},
        {"seed": -1},
        {"confidence": 0.5},
        {"confidence": 1.0},
        {"confidence": 95},
        {"colour": "blue"},
        {"plausible": PLAUSIBLE | {"colour": "blue"}},
        {"plausible": {"control": "random"}},
        {"claims": CLAIMS | {"alpha": 0.0}},
        {"claims": CLAIMS | {"modest_share": 1.0}},
        {"claims": CLAIMS | {"relevance_margin": -0.1}},
        {"claims": CLAIMS | {"auroc_margin": 0.5}},
        {"recommend": RECOMMEND | {"gain": 0}},
        {"recommend": RECOMMEND | {"accuracy_loss": 5}},
    ],
)
def test_report_section_refuses(change):
    with pytest.raises(ConfigError, match=f"report.{next(iter(change))}"):
        section({"report": REPORT | change}, "report", ReportConfig)


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b", "-a", "a\n", "ä"])
def test_a_study_has_a_plain_name(name):
    assert section({"study": {"name": "cifar-10_l2", "description": ""}}, "study", StudyConfig).name == "cifar-10_l2"
    with pytest.raises(ConfigError, match=r"study\.name"):
        section({"study": {"name": name, "description": ""}}, "study", StudyConfig)
