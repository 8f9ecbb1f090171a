"""Rows of all networks -> statistics, tables, figures, the HTML page."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from epsilens import artifacts, config
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.reporting.config import ReportConfig, StudyConfig, SweepConfig
from epsilens.reporting.report import Inputs, build, tabulate
from stages.common import params, run

SHOWN = ("study", "sweep", "threat", "data", "model", "train", "attack", "attribute", "score", "report")  # on the page
PACKAGES = ("torch", "torchvision", "robustness", "captum", "numpy", "pandas", "matplotlib", "dvc", "mlflow")


def combined(root: Path, study: str, sweep: SweepConfig) -> pd.DataFrame:
    """The rows of every cell of the grid, with the study's name in front."""
    tables = [artifacts.read_rows(artifacts.cell(root, *cell) / artifacts.ROWS) for cell in sweep.grid()]
    frame = pa.concat_tables(tables).to_pandas()
    frame.insert(0, "study", study)
    return frame


def where_there(name: str, sweep: SweepConfig) -> pd.DataFrame:
    """The rows of the files of this name in the cells of `score` that have one; an empty table if none has."""
    paths = [artifacts.cell(artifacts.SCORES, *cell) / name for cell in sweep.grid()]
    tables = [artifacts.read_rows(path) for path in paths if path.exists()]
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame()


def gallery(epsilon: str, seed: int) -> tuple[Any, dict[str, bytes]]:
    """Captions and pictures of one network."""
    folder = artifacts.cell(artifacts.GALLERY, epsilon, seed)
    pictures = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    return artifacts.read_json(folder / artifacts.GALLERY_INDEX), pictures


def gates(sweep: SweepConfig) -> dict[tuple[float, int], Any]:
    """The verdict on each network that has one."""
    paths = {cell: artifacts.cell(artifacts.ATTACKS, *cell) / artifacts.GATE for cell in sweep.grid()}
    return {(float(epsilon), seed): artifacts.read_json(p) for (epsilon, seed), p in paths.items() if p.exists()}


def installed(package: str) -> str:
    """Its version; a bare machine that computes has no dvc or mlflow."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def provenance() -> dict[str, str]:
    """What the numbers hold for: versions and checksums, and nothing that changes from run to run."""
    found = {"data manifest (SHA-256)": artifacts.sha256(artifacts.MANIFEST), "python": platform.python_version()}
    return found | {name: installed(name) for name in PACKAGES}


def main() -> None:
    raw = params()
    study, sweep = config.section(raw, "study", StudyConfig), config.section(raw, "sweep", SweepConfig)
    settings = config.section(raw, "report", ReportConfig)
    for root in (artifacts.MODELS, artifacts.ATTACKS, artifacts.ATTRIBUTIONS, artifacts.GALLERY, artifacts.SCORES):
        artifacts.remove_orphans(root, sweep.grid())
    attacks = combined(artifacts.ATTACKS, study.name, sweep)
    scores = combined(artifacts.SCORES, study.name, sweep)
    first = sweep.grid()[0]
    inputs = Inputs(
        study=study,
        norm=config.section(raw, "threat", ThreatConfig).norm,
        budget=config.section(raw, "attack", AttackConfig).epsilon,
        attacks=attacks,
        scores=scores,
        gates=gates(sweep),
        histories={
            (float(epsilon), seed): artifacts.read_json(
                artifacts.cell(artifacts.MODELS, epsilon, seed) / artifacts.HISTORY
            )
            for epsilon, seed in sweep.grid()
        },
        facts=artifacts.read_json(artifacts.cell(artifacts.SCORES, *first) / artifacts.FACTS),
        manifest=artifacts.read_json(artifacts.MANIFEST),
        galleries={epsilon: gallery(str(epsilon), sweep.seeds[0]) for epsilon in sweep.epsilons},
        provenance=provenance(),
        params={name: raw[name] for name in SHOWN},
        audited=where_there(artifacts.AUDITED, sweep),
        traits=where_there(artifacts.TRAITS, sweep),
    )
    tables = tabulate(inputs, settings)
    shutil.rmtree(artifacts.REPORTS, ignore_errors=True)
    for name, content in build(inputs, tables, settings).items():
        artifacts.write_bytes(artifacts.REPORTS / name, content)
    kept = {"attacks": attacks, "scores": scores, "audit": inputs.audited, "traits": inputs.traits}
    for name, frame in ((name, frame) for name, frame in kept.items() if len(frame)):
        artifacts.write_rows(artifacts.REPORTS / "rows" / f"{name}.parquet", frame.to_dict("list"))
    for path in (artifacts.SUMMARY, *artifacts.TABLES):
        artifacts.write_json(path, getattr(tables, path.stem))
    print(f"report: {artifacts.REPORTS / 'index.html'}")


if __name__ == "__main__":
    run(main)
