"""What the gate and the histories of training say of each network, in sentences and as a table for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epsilens.reporting.formats import number
from epsilens.reporting.gate import NOT_RUN, SOUND, Network, Row, Selection
from epsilens.reporting.tables import select


@dataclass(frozen=True)
class Check:
    """meaning: what must hold and why, in one line; failing: what was found where it does not."""

    meaning: str
    failing: str


CHECKS: dict[str, Check] = {
    "gap": Check(
        "PGD must come close to the ensemble of attacks; where it does not, its accuracy overstates the robustness.",
        "the ensemble of attacks breaks many images that PGD leaves whole",
    ),
    "square": Check(
        "A search that needs no gradients must find hardly anything that attacks with gradients miss.",
        "a search without gradients breaks images that attacks with gradients do not",
    ),
    "zero_gradients": Check(
        "The loss must have a gradient at the images; without one an attack has no direction.",
        "the gradient of the loss vanishes at many images",
    ),
    "saturated_gradients": Check(
        "Pixels at the ends of their range must have gradients like all others; a clamp in the network hides them.",
        "saturated pixels have no gradient",
    ),
    "random_output": Check(
        "The same image must get the same output twice; chance in the network sends an attack astray.",
        "the output for one image changes from call to call",
    ),
    "probabilities": Check(
        "The output must be logits; probabilities flatten the loss where the network is sure.",
        "the output is probabilities instead of logits",
    ),
    "loss_stalls": Check(
        "The loss must rise along an attack; where it stalls, the steps lead nowhere.",
        "the loss stalls while the attack goes on",
    ),
    "large_budget": Check(
        "A budget that allows nearly any image must break nearly every image.",
        "images survive a budget that should leave none",
    ),
    "restarts": Check(
        "More starts must find hardly anything new; where they do, one start was too few.",
        "further starts break many images that the first did not",
    ),
    "catastrophic_overfitting": Check(
        "Robust validation accuracy must not collapse in training; the epoch kept then is of a shorter training.",
        "training overfitted catastrophically",
    ),
}


def meaning(check: Mapping[str, Any]) -> str:
    """What a check demands; of one that is not known here, its own label."""
    return CHECKS[check["name"]].meaning if check["name"] in CHECKS else str(check["label"])


def named(network: Network) -> str:
    """`training ε = 8, seed 0`."""
    epsilon, seed = network
    return f"training ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{epsilon:g}, seed\N{NO-BREAK SPACE}{seed}"


def reason(gate: Mapping[str, Any]) -> str:
    """Why a network did not pass: each failed check with what was found and what is allowed."""
    by_name = {check["name"]: check for check in gate["checks"]}
    found = [_failure(name, by_name.get(name)) for name in gate["flags"]]
    return "; ".join(found) or "its gate gives no reason"


def _failure(name: str, check: Mapping[str, Any] | None) -> str:
    text = CHECKS[name].failing if name in CHECKS else name
    if check is None:
        return text
    limit = "" if check["limit"] is None else f", limit {number(check['limit'])}"
    return f"{text} ({check['label']}: {number(check['value'])}{limit})"


def cautions(chosen: Selection) -> list[str]:
    """What the gate found: a sentence for each network that did not pass, and what that does to the trends."""
    if not chosen.gates:
        return [
            "No gate was run: nothing here tells whether a network only looks robust because it hides its gradients "
            "from the attacks."
        ]
    if chosen.none_passed:
        lines = [
            "No network passed the gate against masked gradients. All are shown; no accuracy under attack is safe."
        ]
        return lines + [f"Not sound: {named(network)}: {reason(chosen.gates[network])}." for network in chosen.masked]
    lines = [
        f"Left out of all headline numbers: {named(network)}: {reason(chosen.gates[network])}."
        for network in chosen.left_out
    ]
    return lines + _thinned(chosen)


def _thinned(chosen: Selection) -> list[str]:
    lines = []
    for epsilon in sorted({epsilon for epsilon, _ in chosen.left_out}):
        all_of, left = (sum(e == epsilon for e, _ in group) for group in (chosen.networks, chosen.kept))
        where = f"Training ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{epsilon:g}"
        if left:
            lines.append(f"{where} keeps {left} of {all_of} seeds: its interval says less of other training runs.")
        else:
            lines.append(f"{where} is missing from all trends: none of its networks passed the gate.")
    return lines


def collapses(curves: Sequence[Row]) -> list[str]:
    """A sentence for each network whose training overfitted catastrophically, as its history has it."""
    cells = sorted({(row["epsilon"], row["seed"]) for row in curves if row.get("catastrophic_overfitting")})
    return [_collapse(cell, select(curves, epsilon=cell[0], seed=cell[1])) for cell in cells]


def _collapse(network: Network, history: Sequence[Row]) -> str:
    fallen = [row["epoch"] for row in history if row.get("catastrophic_overfitting")]
    kept = [row["epoch"] for row in history if row.get("kept")]
    weights = f"; the weights are those of epoch {kept[0]}" if kept else ""
    return (
        f"Catastrophic overfitting (arXiv:2001.03994): {named(network)}: robust validation accuracy collapsed in epoch "
        f"{fallen[0]} while the clean one stood{weights}."
    )


def table(chosen: Selection) -> dict[str, Any]:
    """Networks by checks, for the page: `checks` in the order in which they occur, `networks` with a cell a check."""
    gates = chosen.gates
    known = {check["name"]: check for network in chosen.networks for check in gates.get(network, {}).get("checks", ())}
    checks = [{"name": n, "label": c["label"], "source": c["source"], "meaning": meaning(c)} for n, c in known.items()]
    return {"checks": checks, "networks": [_line(chosen, network, list(known)) for network in chosen.networks]}


def _line(chosen: Selection, network: Network, names: Sequence[str]) -> dict[str, Any]:
    gate = chosen.gates.get(network)
    found = {check["name"]: check for check in gate["checks"]} if gate else {}
    verdict = {SOUND: "nothing speaks against its accuracies", NOT_RUN: "not examined"}.get(chosen.verdict(network))
    if gate and verdict is None:
        verdict = f"{'left out' if network in chosen.left_out else 'not sound'}: {reason(gate)}"
    return {
        "epsilon": network[0],
        "seed": network[1],
        "sound": network not in chosen.masked,
        "cells": [found.get(name) for name in names],
        "verdict": verdict,
    }
