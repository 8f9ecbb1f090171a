"""Where the networks of recorded studies of `shapes` stop using the cue, and which metrics move there.

    python -m stages.transition shapes_cue4 shapes_cue8 shapes_cue16

The studies differ in the amplitude of the cue. What they recorded under metrics/ is all that is read; metrics/cue gets a
table of all methods and metrics, a figure of the headline ones, and the reliance of each network.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from epsilens import artifacts, config
from epsilens.attacks.config import ThreatConfig
from epsilens.errors import ConfigError, DataError
from epsilens.metrics import METRICS
from epsilens.reporting.config import ReportConfig
from epsilens.reporting.formats import DIRECTIONS
from epsilens.reporting.transition import Grid, compare, reliance, sheet
from stages.common import run
from stages.provenance import other_code

OUT = artifacts.METRICS / "cue"
KEYS = ["attribution", "metric"]
CUE = "cue_amplitude_255"  # of data.options
DIGITS = 6


def grid(folder: Path) -> tuple[Grid, pd.DataFrame]:
    """The networks of a recorded study, and a row for each: its accuracies and its reliance.

    Raises DataError where there is no cue, or no record.
    """
    path = folder / "networks.csv"
    if not path.is_file():
        raise DataError(f"{path}: is missing; `make record` writes it")
    clean = pd.read_csv(path).query("attack == 'clean'")
    table = clean.pivot(index="epsilon", columns=["split", "seed"], values="accuracy")
    if not {"test", "test_without_cue"} <= set(table.columns.get_level_values(0)):
        raise DataError(f"{path}: has no accuracy on test_without_cue: is no study of `shapes`")
    with_cue, without = table["test"], table["test_without_cue"]
    classes = len(artifacts.read_json(folder / "provenance.json")["data"]["splits"]["test"]["per_class"])
    images = int(clean.loc[clean["split"] == "test", "n_images"].to_numpy().min())
    used = reliance(with_cue.to_numpy(), without.to_numpy(), classes, images)
    means = artifacts.read_rows(folder / artifacts.NETWORK_MEANS).to_pandas()
    measures = {
        names: part.pivot(index="epsilon", columns="seed", values="mean").reindex_like(with_cue).to_numpy()
        for names, part in means.groupby(KEYS, sort=False)
    }
    cue = float(config.read(folder / config.PARAMS)["data"]["options"][CUE])
    gates = clean.query("split == 'test'").pivot(index="epsilon", columns="seed", values="gate")
    shown = pd.DataFrame({"accuracy": with_cue.stack(), "without_cue": without.stack(), "gate": gates.stack()})
    shown = shown.reset_index().assign(reliance=used.ravel())
    return Grid(cue, [float(e) for e in table.index], used, measures), shown.assign(cue=cue)


def alike(folders: list[Path]) -> Mapping[str, Any]:
    """Parameters of the first study. Raises ConfigError where another's differ in more than name, cue and epsilons."""
    first, *others = (apart(config.read(folder / config.PARAMS)) for folder in folders)
    for folder, other in zip(folders[1:], others, strict=True):
        differing = [key for key in first | other if first.get(key) != other.get(key)]
        if differing:
            raise ConfigError(
                f"transition: {folder.name}: {', '.join(differing)} differ from those of {folders[0].name}; "
                f"only data.options.{CUE} and sweep.epsilons may"
            )
    return first


def apart(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a study of `shapes`, without its name, its cue and its epsilons."""
    options = {key: value for key, value in raw["data"]["options"].items() if key != CUE}
    rest = {key: value for key, value in raw.items() if key != "study"}
    return rest | {"data": {**raw["data"], "options": options}, "sweep": sorted(raw["sweep"]["seeds"])}


def rows(grids: list[Grid], report: ReportConfig) -> list[dict[str, Any]]:
    """One row a method and metric that all studies have, for all cues together."""
    found = []
    for names in (names for names in grids[0].measures if all(names in grid.measures for grid in grids)):
        better = METRICS[names[1]].facts.better
        row = compare(grids, names, better, alpha=report.claims.alpha, seed=report.seed)
        rounded = {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in row.items()}
        found.append(dict(zip(KEYS, names, strict=True)) | rounded)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", help="names of folders under metrics/")
    folders = [artifacts.METRICS / name for name in dict.fromkeys(parser.parse_args().studies)]
    grids, networks = zip(*(grid(folder) for folder in folders), strict=True)
    raw = alike(folders)
    report, norm = config.section(raw, "report", ReportConfig), config.section(raw, "threat", ThreatConfig).norm
    found = rows(list(grids), report)
    facts = {name: METRICS[name].facts for name in report.metrics}
    shown = {(report.attribution, name): (its.label, DIRECTIONS[its.better]) for name, its in facts.items()}
    artifacts.write_table(OUT / "transition.csv", found)
    artifacts.write_table(OUT / "networks.csv", pd.concat(networks).round(DIGITS).to_dict("records"))
    artifacts.write_bytes(OUT / "transition.svg", sheet(grids, shown, norm).svg())
    for row in found:
        if row["attribution"] == report.attribution:
            print(
                f"{row['metric']}: {row['verdict']}; in the same step as the cue {row['same']}, earlier {row['earlier']}, "
                f"later {row['later']} (p = {row['p_same']:.2g}); tells networks apart: {row['auroc']:.2f}, "
                f"at the same epsilon {row['auroc_within']:.2f} (p = {row['p_within']:.2g})"
            )
    for line in other_code(
        {"parts": {folder.name: artifacts.read_json(folder / "provenance.json") for folder in folders}}
    ):
        print(f"to be known: {line}")
    print(f"transition: {OUT}")


if __name__ == "__main__":
    run(main)
