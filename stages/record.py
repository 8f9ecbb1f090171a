"""Keep the present results of a study in metrics/<study>/, small enough for Git: tables, figures, parameters, provenance."""

import platform
import shutil
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from epsilens import artifacts, config
from epsilens.data.manifest import read_manifest
from epsilens.reporting.config import StudyConfig
from stages.common import durations, params, run
from stages.forecast import medians

AS_THEY_ARE = (artifacts.SUMMARY, artifacts.CLAIMS)
PACKAGES = ("torch", "torchvision", "robustness", "captum", "numpy")


def provenance(study: str) -> dict[str, Any]:
    """How to repeat the numbers, and on what they were obtained."""
    manifest = read_manifest(artifacts.PREPARED)
    return {
        "command": f"make study NAME={study} && dvc repro",
        "seconds": medians(line for line in durations() if line["study"] == study),
        "machine": {
            "architecture": platform.machine(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.is_available(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "data": {"sources": manifest["sources"], "splits": manifest["splits"], "duplicates": manifest["duplicates"]},
    }


def network_means() -> pd.DataFrame:
    """The rows summarised: of each network, method and metric the mean over all its images, and of how many."""
    rows = artifacts.read_rows(artifacts.REPORTS / "rows" / "scores.parquet").to_pandas()
    keys = ["epsilon", "seed", "attribution", "metric"]
    return rows.groupby(keys, sort=False)["score"].agg(mean="mean", n="count").reset_index()


def main() -> None:
    study = config.section(params(), "study", StudyConfig).name
    artifacts.read_json(artifacts.SUMMARY)  # nothing recorded is touched before there is something to record
    folder = artifacts.METRICS / study
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(artifacts.REPORTS / "figures", folder / "figures")
    shutil.copy(config.PARAMS, folder / "params.yaml")
    for path in AS_THEY_ARE:
        shutil.copy(path, folder / path.name)
    for path in artifacts.TABLES:
        if path in (*AS_THEY_ARE, artifacts.HEADLINE):  # the latter is a part of quality.csv
            continue
        content = path.read_bytes() if path.suffix == ".csv" else artifacts.as_csv(artifacts.read_json(path))
        artifacts.write_bytes(folder / f"{path.stem}.csv", content)
    artifacts.write_rows(folder / artifacts.NETWORK_MEANS, network_means().to_dict("list"))
    artifacts.write_json(folder / "provenance.json", provenance(study))
    print(f"recorded in {folder}; commit it")


if __name__ == "__main__":
    run(main)
