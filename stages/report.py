"""Rows of all networks -> statistics, tables, figures, the HTML page."""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from epsilens import __version__, artifacts, config
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.reporting.config import ReportConfig, StudyConfig, SweepConfig
from epsilens.reporting.report import Inputs, build, tabulate
from stages.common import params, run

SHOWN = ("study", "sweep", "threat", "data", "model", "train", "attack", "attribute", "score", "report")  # on the page
PACKAGES = ("torch", "torchvision", "robustness", "captum", "numpy", "pandas", "matplotlib", "dvc", "mlflow")


def combined(root: Path, study: str, sweep: SweepConfig) -> pd.DataFrame:
    """The rows of every cell of the grid, with the study's name in front."""
    tables = [
        artifacts.read_rows(artifacts.sealed(artifacts.cell(root, *cell)) / artifacts.ROWS) for cell in sweep.grid()
    ]
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
    folder = artifacts.sealed(artifacts.cell(artifacts.GALLERY, epsilon, seed))
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


def provenance(shown: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers hold for: versions and checksums, and nothing that changes from run to run.

    No revision of Git: many have the same results. MLflow has the one at which a result was tracked.
    """
    canonical = json.dumps(shown, sort_keys=True, default=str).encode()
    return {
        "parameters below (SHA-256)": hashlib.sha256(canonical).hexdigest(),
        "data manifest (SHA-256)": artifacts.sha256(artifacts.MANIFEST),
        "epsilens": __version__,
        "python": platform.python_version(),
        **{name: installed(name) for name in PACKAGES},
    }


def inputs(raw: Mapping[str, Any]) -> Inputs:
    """All that the results of the grid say, from rows and small JSON files: no model is read."""
    study, sweep = config.section(raw, "study", StudyConfig), config.section(raw, "sweep", SweepConfig)
    first = sweep.grid()[0]
    return Inputs(
        study=study,
        norm=config.section(raw, "threat", ThreatConfig).norm,
        budget=config.section(raw, "attack", AttackConfig).epsilon,
        attacks=combined(artifacts.ATTACKS, study.name, sweep),
        scores=combined(artifacts.SCORES, study.name, sweep),
        gates=gates(sweep),
        histories={
            (float(epsilon), seed): artifacts.read_json(
                artifacts.sealed(artifacts.cell(artifacts.MODELS, epsilon, seed), artifacts.HISTORY) / artifacts.HISTORY
            )
            for epsilon, seed in sweep.grid()
        },
        facts=artifacts.read_json(artifacts.cell(artifacts.SCORES, *first) / artifacts.FACTS),
        manifest=artifacts.read_json(artifacts.MANIFEST),
        galleries={epsilon: gallery(str(epsilon), sweep.seeds[0]) for epsilon in sweep.epsilons},
        provenance=provenance({name: raw[name] for name in SHOWN}),
        params={name: raw[name] for name in SHOWN},
        audited=where_there(artifacts.AUDITED, sweep),
        traits=where_there(artifacts.TRAITS, sweep),
    )


def main() -> None:
    raw = params()
    sweep, settings = config.section(raw, "sweep", SweepConfig), config.section(raw, "report", ReportConfig)
    for root in (artifacts.MODELS, artifacts.ATTACKS, artifacts.ATTRIBUTIONS, artifacts.GALLERY, artifacts.SCORES):
        artifacts.remove_orphans(root, sweep.grid())
    found = inputs(raw)
    tables = tabulate(found, settings)
    shutil.rmtree(artifacts.REPORTS, ignore_errors=True)
    for name, content in build(found, tables, settings).items():
        artifacts.write_bytes(artifacts.REPORTS / name, content)
    kept = {"attacks": found.attacks, "scores": found.scores, "audit": found.audited, "traits": found.traits}
    for name, frame in ((name, frame) for name, frame in kept.items() if len(frame)):
        artifacts.write_rows(artifacts.REPORTS / "rows" / f"{name}.parquet", frame.to_dict("list"))
    artifacts.write_json(artifacts.SUMMARY, tables.summary)
    for path in artifacts.TABLES:
        artifacts.write_table(path, getattr(tables, path.stem))
    print(f"report: {artifacts.REPORTS / 'index.html'}")


if __name__ == "__main__":
    run(main)
