"""MLflow as its users meet it: a server named by MLFLOW_TRACKING_URI alone, which may be down, and pages in a browser."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Project, kill, until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
PATIENCE = 90.0  # seconds for a page on a busy machine
FACE = "workflowType=machine_learning"  # MLflow opens with its pages for language models

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium leaves its driver's sockets to the collector
]


@dataclass(frozen=True)
class Served:
    """A toy study whose mirror is on a server, and what `track` said while the server was down, then twice after."""

    url: str
    said: tuple[str, str, str]


def free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def server(folder: Path, project: Project, port: int) -> Iterator[None]:
    """An MLflow server with a store of its own."""
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/files"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=project.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            until(lambda: healthy(port), 120)
            yield
        finally:
            kill(-process.pid)
            process.wait()


def healthy(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return answer.status == 200
    return False


@pytest.fixture(scope="module")
def served(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copytree(reproduced.folder, folder / "study", symlinks=True)
    project, url = Project(folder / "study"), f"http://127.0.0.1:{port}"

    def track(status: int) -> str:
        more = {"MLFLOW_TRACKING_URI": url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "EPSILENS_MLFLOW_MODELS": "all"}
        return project.run(sys.executable, "-m", "stages.track", status=status, **more)

    down = track(3)
    with server(folder, project, port):
        yield Served(url, (down, track(0), track(0)))


def test_a_server_that_was_down_is_caught_up_with(served: Served) -> None:
    down, first, second = served.said
    assert "refused" in down
    assert "all results are there" in down
    assert "Traceback" not in down
    assert f"written ({served.url})" in first
    assert "is already there" in second


def test_a_model_of_the_server_predicts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network has one, with real weights; loaded through the server."""
    import torch
    from mlflow import pytorch
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.url)
    client = MlflowClient(served.url)
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    models = client.search_logged_models([experiment.experiment_id])
    assert len(models) == 2
    for model in models:
        logits = pytorch.load_model(f"models:/{model.model_id}")(torch.rand(3, 3, 16, 16))
        assert logits.shape == (3, 10)
        assert logits.isfinite().all()


@dataclass(frozen=True)
class Browser:
    """A page and what it says; nothing of the browser's state outlives a test."""

    driver: Any
    url: str

    def open(self, page: str) -> None:
        """A page of the UI's own."""
        self.driver.get(f"{self.url}/#/{page}?{FACE}")

    def until(self, found: Callable[[], object]) -> None:
        """Wait until a page has something; elements that are drawn anew meanwhile are looked for again."""
        from selenium.common.exceptions import WebDriverException

        def there() -> object:
            with suppress(WebDriverException):
                return found()
            return False

        until(there, PATIENCE)

    def says(self, *texts: str) -> None:
        """Wait until the page shows all the texts."""
        self.until(lambda: all(text in self.driver.find_element("tag name", "body").text for text in texts))


@pytest.fixture
def browser(served: Served, tmp_path: Path) -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium or chromedriver is not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver, served.url)
    finally:
        driver.quit()


@pytest.mark.browser
def test_the_pages_show_runs_curves_and_files(served: Served, browser: Browser) -> None:
    """The experiment, the study's run with its description, its curves over epsilon, its report; and a network's gallery."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(served.url)
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (study,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    network = next(run for run in runs if run.info.run_name == "eps-4-seed-0")
    home = f"experiments/{experiment.experiment_id}/runs"

    browser.open(home)
    browser.says(str(study.info.run_name), "Ten shapes with masks", "3 matching runs", "shapes-train")
    browser.open(f"{home}/{study.info.run_id}")
    browser.says("2 networks trained at", "the report", "by_epsilon/accuracy.clean", "stage.train")
    browser.open(f"{home}/{study.info.run_id}/model-metrics")
    browser.says("by_epsilon", "accuracy.pgd")
    browser.open(f"{home}/{study.info.run_id}/artifacts/reports/index.html")
    browser.says("params.yaml", "dvc.lock", "figures", "rows", "index.html")
    browser.until(lambda: browser.driver.find_elements("tag name", "iframe"))
    browser.open(f"{home}/{network.info.run_id}/artifacts/gallery.png")
    browser.says("card.json", "history.json", "gallery.png")
    pictures = "return [...document.images].filter(image => image.naturalWidth > 300).length"
    browser.until(lambda: browser.driver.execute_script(pictures))
