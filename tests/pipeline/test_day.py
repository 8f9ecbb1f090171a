"""docs/day.md is run, command by command and in its order, on the toy study."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.pipeline.conftest import Project, until

IN_TOY = {  # what is other in the toy study
    "sweep.epsilons=[0,1,2,4,8]": "sweep.epsilons=[0,2,4]",
    "sweep.seeds=[0]": "sweep.epsilons=[0,4]",
    "make ": "make -o setup ",  # the environment is there
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NETWORK = ("train", "attack", "attribute", "score")
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
    try:
        yield Day(project, sections(page))
    finally:
        with suppress(AssertionError):  # workers outlive their queue by some seconds
            project.run("dvc", "queue", "stop", "--kill")
        end_all(project.folder)


def end_all(folder: Path) -> None:
    """Kill whatever still works in a folder: workers are no children of the test, and a queue that is broken stops none."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def runs(project: Project) -> list[str]:
    """The names of the runs of states in MLflow."""
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return sorted(str(run.info.run_name) for run in found if "mlflow.parentRunId" not in run.data.tags)


def settled(project: Project) -> bool:
    """Whether the queue has nothing to do any more."""
    return not re.search("Queued|Running", project.run("dvc", "queue", "status"))


def test_the_page_is_true(day: Day) -> None:
    original = day.project
    day.until("Run")
    assert "nothing to run: everything is up to date" in day.answers["Run"]
    assert ran(day.answers["Run"]) == set()
    assert "\nscore@4-0\n" in day.answers["Run"]  # so are stages named

    day.until("Another epsilon")
    answer = day.answers["Another epsilon"]
    assert ran(answer) == {f"{stage}@2-0" for stage in NETWORK} | {"report", "track"}
    assert len(re.findall(r"params.yaml +sweep.epsilons +\[0, 4\] +\[0, 2, 4\]", answer)) == 2  # params diff, exp diff
    assert len(re.findall(r"metrics/summary.json +gini.robust ", answer)) == 2  # metrics diff, exp diff
    plots = (original.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "https://cdn.jsdelivr.net/npm/vega@" in plots
    for name in ("compare", "index"):
        page = (original.folder / f"reports/{name}.html").read_text(encoding="utf-8")
        assert not re.search(r"""(src|href)=["']?https?:""", page)

    day.until("Several questions at once")
    until(lambda: settled(original), 240)
    assert original.run("dvc", "queue", "status").count("Success") == 2
    day.until("Compare them")
    answer = day.answers["Compare them"]
    assert ran(answer) == {"score@0-0", "score@2-0", "score@4-0", "report", "track"}  # of the log of nearer
    shown = answer[answer.index("\nexperiment  ") + 1 :].splitlines()
    assert shown[0].split()[:3] == ["experiment", "epsilons", "radius_255"]
    assert max(map(len, shown[:4])) <= 120
    for name in ("finer", "one-seed", "nearer"):
        assert answer.count(f"\n  {name} ") == 2  # of the two tables
    assert re.search(r"score\S+radius_255 +4 +2", answer)
    assert "No experiment tasks" in original.run("dvc", "queue", "status")
    assert [name.split("-")[0] for name in runs(original)] == ["finer", "nearer", "shapes"]
    # one-seed is, in the toy study, the state that was there first: it has its run

    day.until("Keep one")
    assert original.run("git", "status", "--short") == ""
    assert original.run("dvc", "exp", "list", "--all").strip() == ""
    assert "radius_255: 2" in original.run("git", "show", "smaller-radius:params.yaml")
    assert yaml.safe_load((original.folder / "params.yaml").read_text())["sweep"]["epsilons"] == [0, 2, 4]
    assert ran(original.run("dvc", "repro")) == set()

    day.until("Share")
    clone = day.project
    assert clone.folder == original.folder.parent / "clone"
    assert ran(day.answers["Share"]) == set()
    assert day.answers["Share"].strip().endswith("up to date.")
    assert clone.run("git", "status", "--short") == ""  # dvc.lock among them
    assert (clone.folder / "models/eps-2/seed-0/model.safetensors").exists()
    clone.run(sys.executable, "-m", "stages.track")
    assert len(runs(clone)) == 1
    assert set(day.commands) - set(day.answers) == {"After a crash"}


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
