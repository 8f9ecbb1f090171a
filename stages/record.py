"""Keep the present results of a study in metrics/<study>/, small enough for Git: tables, figures, parameters, provenance.

--part NAME keeps them as a part of a study that is run in several goes or on several machines (docs/scale.md): the rows
that `make merge` needs, in metrics/<study>/parts/NAME.
"""

import argparse
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from epsilens import artifacts, config
from epsilens.errors import ConfigError
from epsilens.reporting.config import StudyConfig
from stages import parts
from stages.common import params, run
from stages.provenance import provenance
from stages.report import inputs

AS_JSON = (artifacts.SUMMARY, artifacts.CLAIMS)
ELSEWHERE = artifacts.HEADLINE  # a part of quality.csv


def network_means(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows summarised: of each network, method and metric the mean over all its images, and of how many."""
    keys = ["epsilon", "seed", "attribution", "metric"]
    return scores.groupby(keys, sort=False)["score"].agg(mean="mean", n="count").reset_index()


def keep(folder: Path, tables: Mapping[Path, Any], scores: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write the tables of a study (rows, or CSV as it is), and its provenance. Of what `folder` had, its parts stay."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != parts.FOLDER:
            (shutil.rmtree if path.is_dir() else Path.unlink)(path)
    for path, rows in tables.items():
        if path in AS_JSON:
            artifacts.write_json(folder / path.name, rows)
        elif path != ELSEWHERE:
            artifacts.write_bytes(
                folder / f"{path.stem}.csv", rows if isinstance(rows, bytes) else artifacts.as_csv(rows)
            )
    artifacts.write_rows(folder / artifacts.NETWORK_MEANS, network_means(scores).to_dict("list"))
    artifacts.write_json(folder / "provenance.json", about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="")
    part = parser.parse_args().part
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", part) or part.startswith("."):
        raise ConfigError(f"--part: found {part!r}, allowed are letters, digits, _, . and -")
    raw = params()
    study = config.section(raw, "study", StudyConfig).name
    artifacts.read_json(artifacts.SUMMARY)  # nothing recorded is touched before there is something to record
    folder = artifacts.METRICS / study
    if part:
        folder = folder / parts.FOLDER / part
        found, about = inputs(raw), provenance(raw)  # before anything recorded is touched
        shutil.rmtree(folder, ignore_errors=True)
        parts.write(folder, found)
        artifacts.write_json(folder / "provenance.json", about)
    else:
        scores = artifacts.read_rows(artifacts.REPORTS / "rows" / "scores.parquet").to_pandas()
        tables = {
            path: path.read_bytes() if path.suffix == ".csv" else artifacts.read_json(path)
            for path in (artifacts.SUMMARY, *artifacts.TABLES)
        }
        keep(folder, tables, scores, provenance(raw))
        shutil.copytree(artifacts.REPORTS / "figures", folder / "figures")
    shutil.copy(config.PARAMS, folder / config.PARAMS)
    print(f"recorded in {folder}; " + (f"`make merge NAME={study}` when all parts are there" if part else "commit it"))


if __name__ == "__main__":
    run(main)
