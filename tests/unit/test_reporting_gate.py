"""Networks that hide their gradients: listed with their verdict, and in no number that compares networks."""

from dataclasses import replace

import pandas as pd
import pytest

from epsilens.attacks import STANDARD, masking
from epsilens.errors import DataError
from epsilens.reporting import trust
from epsilens.reporting.gate import BREAKERS, breakage_table, gate_table, is_masked, selection
from epsilens.reporting.report import build, tabulate
from epsilens.reporting.tables import select
from tests.unit.test_reporting_report import CONFIG, Page, built, gate, study

GRID = pd.DataFrame({"epsilon": [8.0, 0.0, 8.0, 0.0, 0.0], "seed": [1, 0, 0, 1, 0], "score": [1, 2, 3, 4, 5]})
ALL = [(0.0, 0), (0.0, 1), (8.0, 0), (8.0, 1)]
MASKED = gate(0.12)


def gates(*masked):
    return {network: MASKED if network in masked else gate() for network in ALL}


def without(inputs, *networks):
    """The same study as if these networks had never been."""

    def rest(rows):
        return rows[[cell not in networks for cell in zip(rows["epsilon"], rows["seed"], strict=True)]]

    kept = {cell: verdict for cell, verdict in inputs.gates.items() if cell not in networks}
    return replace(inputs, attacks=rest(inputs.attacks), scores=rest(inputs.scores), gates=kept)


def flagged(inputs, *networks):
    return replace(inputs, gates=inputs.gates | dict.fromkeys(networks, MASKED))


def html(inputs):
    text = built(inputs)["index.html"].decode()
    Page(text)
    return text.replace("\xa0", " ")


def test_networks_that_did_not_pass_are_left_out():
    chosen = selection(GRID, gates((8.0, 1)))
    assert chosen.networks == tuple(ALL)
    assert (chosen.left_out, chosen.kept) == (((8.0, 1),), tuple(ALL[:3]))
    assert chosen.of(GRID)["score"].tolist() == [2, 3, 4, 5]
    assert (chosen.missing, chosen.none_passed) == ([], False)
    assert chosen.verdict((8.0, 1)) == "gap"
    assert chosen.verdict((0.0, 0)) == "sound"
    assert selection(GRID, gates((8.0, 0), (8.0, 1))).missing == [8.0]


def test_without_a_gate_all_are_kept_and_called_not_run():
    chosen = selection(GRID, {})
    assert chosen.kept == chosen.networks == tuple(ALL)
    assert (chosen.verdict((0.0, 0)), chosen.none_passed, gate_table(chosen)) == ("not run", False, [])


def test_where_none_passed_all_are_kept():
    chosen = selection(GRID, gates(*ALL))
    assert chosen.none_passed
    assert (chosen.kept, chosen.left_out, chosen.missing) == (tuple(ALL), (), [])
    assert len(chosen.of(GRID)) == 5


def test_a_gate_for_some_networks_only_is_an_error_that_names_the_others():
    with pytest.raises(DataError, match=r"no verdict for epsilon 0, seed 1; epsilon 8, seed 0; run `attack` again"):
        selection(GRID, {network: gate() for network in ((0.0, 0), (8.0, 1))})


@pytest.mark.parametrize(
    ("verdict", "masked"), [("sound", False), ("not run", False), ("gap, square", True), ("not sound", True)]
)
def test_what_counts_as_masked(verdict, masked):
    assert is_masked({"gate": verdict}) == masked


def test_an_unsound_network_without_flags_is_left_out_all_the_same():
    chosen = selection(GRID, gates() | {(8.0, 1): {"sound": False, "flags": [], "checks": []}})
    assert chosen.left_out == ((8.0, 1),)
    assert chosen.verdict((8.0, 1)) == "not sound"
    assert "its gate gives no reason" in trust.cautions(chosen)[0]


def test_the_gate_table_has_a_row_a_network_and_check():
    rows = gate_table(selection(GRID, gates((0.0, 1))))
    assert [(row["epsilon"], row["seed"], row["check"]) for row in rows] == [
        (*network, check) for network in ALL for check in ("gap", "restarts")
    ]
    assert rows[2] == {
        "epsilon": 0.0, "seed": 1, "sound": False, "check": "gap", "label": "PGD-20 minus AutoAttack accuracy",
        "value": 0.12, "limit": 0.08, "failed": True, "source": "Somebody 2020",
    }  # fmt: skip
    assert rows[3]["value"] is None


def test_what_broke_the_images_adds_up():
    broken = ["", "apgd_ce", "clean", "", "fab_t", "apgd_ce", "", "new"]
    row = {"epsilon": 8.0, "seed": 1, "split": "test", "attack": "autoattack", "norm": "linf", "budget": 8.0}
    rows = [row | {"broken_by": by} for by in broken]
    strange = {"attack": "pgd", "norm": "l2", "budget": 4.0, "split": "other"}
    rows += [row | {key: value, "broken_by": "square"} for key, value in strange.items()]
    (found,) = breakage_table(pd.DataFrame(rows), selection(GRID, gates((8.0, 1))), norm="linf", budget=8.0)
    assert found == {
        "epsilon": 8.0, "seed": 1, "attack": "autoattack", "n_images": 8, "clean": 0.125, "apgd_ce": 0.25,
        "apgd_t": 0.0, "fab_t": 0.125,
        "square": 0.0, "new": 0.125, "survived": 0.375, "gate": "gap",
    }  # fmt: skip
    assert breakage_table(pd.DataFrame(rows), selection(GRID, {}), norm="l1", budget=8.0) == []
    other = pd.DataFrame(rows).replace({"attack": {"autoattack": "ensemble"}})
    (found,) = breakage_table(other, selection(GRID, {}), norm="linf", budget=8.0)
    assert list(found) == [
        "epsilon", "seed", "attack", "n_images", "clean", "apgd_ce", "fab_t", "new", "survived", "gate",
    ]  # fmt: skip


@pytest.mark.parametrize("networks", [((4.0, 1),), ((8.0, 0), (8.0, 1)), ((0.0, 0), (8.0, 1))])
def test_a_masked_network_changes_no_headline_number_and_stays_in_the_table_of_networks(networks):
    inputs = study(epsilons=(0.0, 4.0, 8.0))
    found, expected = tabulate(flagged(inputs, *networks), CONFIG), tabulate(without(inputs, *networks), CONFIG)
    for name in ("accuracy", "quality", "summary"):  # as text, for what is undefined is unequal to itself
        assert str(getattr(found, name)) == str(getattr(expected, name))
    whole = tabulate(inputs, CONFIG)
    assert found.accuracy != whole.accuracy
    assert [row | {"gate": ""} for row in found.networks] == [row | {"gate": ""} for row in whole.networks]
    assert {(row["epsilon"], row["seed"]) for row in found.networks if row["gate"] == "gap"} == set(networks)
    assert {(row["epsilon"], row["seed"]) for row in found.broken} == set(inputs.gates)
    assert {(row["epsilon"], row["seed"]) for row in found.curves} == set(inputs.gates)


def test_a_masked_network_does_not_shrink_the_common_set():
    inputs = study(epsilons=(0.0, 8.0))
    wrong = (inputs.scores["epsilon"] == 8.0) & (inputs.scores["seed"] == 1)
    inputs = replace(inputs, scores=inputs.scores.assign(correct=inputs.scores["correct"] & ~wrong))
    n = {row["n"] for row in select(tabulate(inputs, CONFIG).quality, set="common", metric="gini")}
    assert n == {0}
    rows = select(tabulate(flagged(inputs, (8.0, 1)), CONFIG).quality, set="common", metric="gini")
    assert min(row["n"] for row in rows) > 30
    assert {(row["epsilon"], row["n_seeds"], row["nan"]) for row in rows} == {(0.0, 2, 0), (8.0, 1, 0)}


def test_seeds_that_two_epsilons_do_not_share_give_a_difference_without_interval():
    tables = tabulate(flagged(study(epsilons=(0.0, 8.0)), (0.0, 0), (8.0, 1)), CONFIG)
    (row,) = select(tables.accuracy, epsilon=8.0, split="test", attack="clean")
    assert row["difference"] == row["difference"]
    assert row["difference_low"] != row["difference_low"]
    assert row["low"] <= row["accuracy"] <= row["high"]


def test_the_page_names_what_is_left_out_and_why():
    text = html(flagged(study(epsilons=(0.0, 4.0, 8.0)), (4.0, 1)))
    assert "3 training ε × 2 seeds = 6 networks" in text
    assert "1 left out: its accuracies cannot be trusted" in text
    assert (
        "Left out of all headline numbers: training ε = 4, seed 1: the ensemble of attacks breaks many images that PGD "
        "leaves whole (PGD-20 minus AutoAttack accuracy: 0.120, limit 0.080)."
    ) in text
    assert "Training ε = 4 keeps 1 of 2 seeds" in text
    assert "Can these accuracies be trusted?" in text
    assert "✗ 0.120 / 0.080" in text
    assert "nothing speaks against its accuracies" in text
    assert trust.CHECKS["gap"].meaning in text
    assert "crosses: those that did not pass the gate" in text


def test_the_page_says_which_epsilon_is_missing():
    text = html(flagged(study(epsilons=(0.0, 4.0, 8.0)), (8.0, 0), (8.0, 1)))
    assert "Training ε = 8 is missing from all trends: none of its networks passed the gate." in text
    assert "From training ε = 0 to ε = 4" in text
    assert "ε in 1/255, L∞: 0, 4, 8" in text


def test_where_every_network_fails_all_are_shown_with_a_warning():
    inputs = study(epsilons=(0.0, 8.0))
    bad = flagged(inputs, *inputs.gates)
    found, whole = tabulate(bad, CONFIG), tabulate(inputs, CONFIG)
    assert (found.accuracy, found.summary) == (whole.accuracy, whole.summary)
    assert all(row["gate"] == "gap" for row in found.networks)
    text = html(bad)
    assert '<aside class="cautions alarm"><h3>No network passed the gate</h3>' in text
    assert text.count("Not sound: training ε =") == 4
    assert "Left out" not in text
    assert "not sound: the ensemble of attacks breaks many images" in text


def test_without_a_gate_the_page_says_so():
    text = html(replace(study(), gates={}))
    assert "No gate was run: nothing here tells" in text
    assert "nothing was left out" in text
    assert 'class="wrong">not run' not in text
    assert 'alarm">' not in text


def test_a_sound_study_warns_of_nothing():
    text = html(study())
    assert "No gate was run" not in text
    assert "Left out of all headline numbers" not in text
    assert "crosses" not in text
    assert "Catastrophic" not in text
    assert "What broke the images" in text


def test_a_collapse_that_the_history_marks_is_a_sentence():
    inputs = study(epsilons=(0.0, 8.0))
    fallen = [entry | {"catastrophic_overfitting": entry["epoch"] == 3} for entry in inputs.histories[8.0, 1]]
    calm = [entry | {"catastrophic_overfitting": False} for entry in inputs.histories[0.0, 0]]
    inputs = replace(inputs, histories=inputs.histories | {(8.0, 1): fallen, (0.0, 0): calm})
    sentences = trust.collapses(tabulate(inputs, CONFIG).curves)
    assert [sentence.replace("\xa0", " ") for sentence in sentences] == [
        "Catastrophic overfitting (arXiv:2001.03994): training ε = 8, seed 1: robust validation accuracy collapsed in "
        "epoch 3 while the clean one stood; the weights are those of epoch 2."
    ]
    assert "training ε = 8, seed 1: robust validation accuracy collapsed" in html(inputs)


def test_every_check_of_the_gate_has_its_sentences():
    assert list(trust.CHECKS) == list(masking.CHECKS)
    assert ("clean", *STANDARD) == BREAKERS
    assert all(check.meaning.endswith(".") and not check.failing.endswith(".") for check in trust.CHECKS.values())


def test_a_check_that_is_not_known_speaks_for_itself():
    check = {"name": "new", "label": "A new check", "value": 3.0, "limit": None, "failed": True, "source": "-"}
    verdict = {"sound": False, "flags": ["new", "lost"], "checks": [check]}
    assert trust.meaning(check) == "A new check"
    assert trust.reason(verdict) == "new (A new check: 3.000); lost"


def test_the_table_of_the_page_has_a_gap_where_a_network_lacks_a_check():
    short = gate() | {"checks": gate()["checks"][1:]}
    found = trust.table(selection(GRID, gates((0.0, 1)) | {(8.0, 0): short}))
    assert [check["name"] for check in found["checks"]] == ["gap", "restarts"]
    lines = {(line["epsilon"], line["seed"]): line for line in found["networks"]}
    assert lines[8.0, 0]["cells"] == [None, short["checks"][0]]
    assert lines[0.0, 1]["verdict"].startswith("left out: the ensemble of attacks breaks many images")
    assert (lines[0.0, 1]["sound"], lines[0.0, 0]["sound"]) == (False, True)


def test_figures_of_a_study_with_a_masked_network_are_drawn():
    inputs = flagged(study(epsilons=(0.0, 8.0), seeds=(0,)), (8.0, 0))
    files = build(inputs, tabulate(inputs, CONFIG), CONFIG)
    assert {"figures/accuracy.svg", "figures/security-linf.svg", "figures/matrix-pgd-linf.svg"} <= set(files)
