"""Descriptions (Markdown) of an experiment, of a study's run and of a network's, with links to what is stored there."""

from __future__ import annotations

from epsilens.artifacts import REPORTS
from epsilens.tracking.state import CARD, LOCK, PipelineState

UNITS = {"linf": "/255 (Linf)", "l2": " (L2, of pixels in [0, 1])"}
SHEET = "gallery.png"


def study_note(state: PipelineState, page: str) -> str:
    """What was asked, how, and where the answers are. page: of the run's artifacts, without a slash at its end."""
    params = state.params
    unit = UNITS.get(params["threat"]["norm"], "")
    epsilons = ", ".join(dict.fromkeys(epsilon for epsilon, _ in state.grid))
    links = {
        "the report": REPORTS / "index.html",
        "the figures": REPORTS / "figures",
        "the rows behind every number": REPORTS / "rows",
        "dvc.lock": LOCK,
    }
    places = ", ".join(f"[{title}]({page}/{path.as_posix()})" for title, path in links.items())
    return (
        f"{params['study']['description']}\n\n{len(state.grid)} networks trained at ε = {epsilons}{unit} and attacked at "
        f"{params['attack']['epsilon']:g}{unit}: a run each, below this one. Here: {places}. "
        f"Charts of `by_epsilon/...` have the step 1000 ε; in the table such a column shows the largest ε."
    )


def network_note(state: PipelineState, epsilon: str, seed: int, page: str) -> str:
    """What this network is, and where its gallery and card are."""
    unit = UNITS.get(state.params["threat"]["norm"], "")
    return (
        f"One network, trained at ε = {epsilon}{unit} with seed {seed}. Here: [its gallery]({page}/{SHEET}), "
        f"[its card]({page}/{CARD}), its model under *Logged models*; DVC keeps the weights in "
        f"`models/eps-{epsilon}/seed-{seed}`."
    )


def artifacts_page(experiment: str, run: str) -> str:
    """The page of a run's artifacts inside MLflow's own UI."""
    return f"#/experiments/{experiment}/runs/{run}/artifacts"
