"""docs/day.md is run, command by command and in its order, on the toy study."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.pipeline.conftest import Project, until

IN_TOY = {  # what is other in the toy study
    "sweep.epsilons=[0,1,2,4,8]": "sweep.epsilons=[0,2,4]",
    "sweep.seeds=[0]": "sweep.epsilons=[0,4]",
    "make ": "COLUMNS=200 make -o setup ",  # the environment is there; the terminal is wide
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
WHO = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def sections(page: str) -> dict[str, list[str]]:
    """The commands under each heading."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)[1:]
    blocks = {name: "".join(BLOCK.findall(text)) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return {name: [line[2:] for line in text.splitlines() if line.startswith("$ ")] for name, text in blocks.items()}


@dataclass
class Day:
    """A shell in the toy study: the folder it is in, and what the page's commands answer."""

    project: Project
    commands: dict[str, list[str]]
    answers: dict[str, str] = field(default_factory=dict)

    def until(self, last: str) -> None:
        """Run the page from where it stands to the end of a section."""
        for name in list(self.commands)[len(self.answers) :]:
            self.answers[name] = "".join(map(self.run, self.commands[name]))
            if name == last:
                return

    def run(self, command: str) -> str:
        for here, there in IN_TOY.items():
            command = command.replace(here, there)
        if command.startswith("cd "):
            self.project = Project((self.project.folder / command[3:]).resolve())
            return ""
        return self.project.run("bash", "-c", command, **WHO)


def ran(answer: str) -> set[str]:
    return {line.split("'")[1] for line in answer.splitlines() if line.startswith("Running stage")}


@pytest.fixture
def day(root: Path, project: Project) -> Iterator[Day]:
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        (project.folder / name).write_bytes((root / name).read_bytes())
    project.commit()
    page = (root / "docs" / "day.md").read_text(encoding="utf-8")
    yield Day(project, sections(page))
    with suppress(AssertionError):  # workers outlive their queue by some seconds
        project.run("dvc", "queue", "stop", "--kill")


def runs(project: Project) -> list[str]:
    """The names of the runs of states in MLflow."""
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return sorted(str(run.info.run_name) for run in found if "mlflow.parentRunId" not in run.data.tags)


def test_the_page_is_true(day: Day) -> None:
    original = day.project
    day.until("Run")
    assert "nothing to run: everything is up to date" in day.answers["Run"]
    assert ran(day.answers["Run"]) == set()

    day.until("Another epsilon")
    answer = day.answers["Another epsilon"]
    assert ran(answer) == {f"{stage}@2-0" for stage in ("train", "attack", "attribute", "score")} | {"report", "track"}
    assert re.search(r"params.yaml +sweep.epsilons +\[0, 4\] +\[0, 2, 4\]", answer)
    assert re.search(r"metrics/summary.json +gini.robust ", answer)
    assert (original.folder / "dvc_plots/index.html").exists()
    assert (original.folder / "reports/compare.html").exists()

    day.until("Several questions at once")
    until(lambda: not re.search("Queued|Running", original.run("dvc", "queue", "status")), 240)
    table = original.run("dvc", "exp", "show", "--csv", "--only-changed")
    assert original.run("dvc", "queue", "status").count("Success") == 2
    for name in ("finer", "one-seed", "nearer"):
        assert re.search(rf"\b{name}\b", table)
    assert "direction_sensitivity" in day.run("make show")
    assert "radius" in original.run("dvc", "exp", "diff", "HEAD", "nearer")
    assert [name.split("-")[0] for name in runs(original)] == ["finer", "nearer", "shapes"]
    # one-seed is, in the toy study, the state that was there first: it has its run

    day.until("Keep one")
    assert original.run("git", "status", "--short") == ""
    assert not re.search("one-seed|nearer|finer", original.run("dvc", "exp", "list"))
    assert yaml.safe_load((original.folder / "params.yaml").read_text())["sweep"]["epsilons"] == [0, 2, 4]
    assert ran(original.run("dvc", "repro")) == set()

    day.until("Share")
    assert day.project.folder == original.folder.parent / "clone"
    assert ran(day.answers["Share"]) == set()
    assert day.answers["Share"].strip().endswith("up to date.")
    assert day.project.run("git", "status", "--short") == ""
    assert (day.project.folder / "models/eps-2/seed-0/model.safetensors").exists()
    day.project.run(sys.executable, "-m", "stages.track")
    assert len(runs(day.project)) == 1
    assert "After a crash" in day.commands


def test_a_clone_fetches_what_it_needs_and_one_without_a_remote_says_what_is_missing(
    reproduced: Project, tmp_path: Path
) -> None:
    shared, clone = tmp_path / "shared", Project(tmp_path / "clone")
    reproduced.run("dvc", "push", "--quiet", "--remote", "there", status=1)
    subprocess.run(["git", "clone", "--quiet", reproduced.folder, clone.folder], check=True)
    assert clone.run("dvc", "status", "--quiet", status=1) == ""
    clone.run("dvc", "remote", "add", "--default", "shared", str(shared))
    subprocess.run(["cp", "-r", reproduced.folder / ".dvc/cache", shared], check=True)
    assert ran(clone.run("dvc", "repro", "--pull")) == set()
    assert clone.run("dvc", "status").strip().endswith("up to date.")
