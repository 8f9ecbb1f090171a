"""Make one study of the parts under metrics/<study>/parts: `python -m stages.merge cifar10` (docs/scale.md).

Parts are what `make record PART=<name>` has kept of runs of the same study with other seeds or epsilons. Tables and figures
of all their networks together are written to metrics/<study>, as `make record` writes them. No model runs.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from epsilens import artifacts, config
from epsilens.errors import DataError
from epsilens.reporting.config import ReportConfig
from epsilens.reporting.report import draw, file_name, tabulate
from stages import parts
from stages.common import run
from stages.provenance import merged, other_code
from stages.record import keep


def as_written(path: Path, rows: Any) -> Any:
    """Rows with their columns in the order in which the table has them in metrics/."""
    return json.loads(artifacts.as_json(rows)) if path.suffix == ".json" else rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    folder = artifacts.METRICS / parser.parse_args().study
    folders = sorted(path.parent for path in (folder / parts.FOLDER).glob(f"*/{parts.REST}"))
    if not folders:
        raise DataError(f"{folder / parts.FOLDER}: holds no part; `python -m stages.record --part NAME` makes one")
    read = {path: parts.read(path) for path in folders}
    found = parts.merge({path.name: part for path, part in read.items()})
    about = merged(folder.name, {path: len(parts.networks(part)) for path, part in read.items()})
    report = config.section(found.params, "report", ReportConfig)
    tables = tabulate(found, report)
    rows = {path: as_written(path, getattr(tables, path.stem)) for path in (artifacts.SUMMARY, *artifacts.TABLES)}
    keep(folder, rows, found.scores, about)
    for name, sheet in draw(found, tables, report).items():
        artifacts.write_bytes(folder / "figures" / f"{file_name(name)}.svg", sheet.svg())
    text = yaml.safe_dump(dict(found.params), sort_keys=False, allow_unicode=True)
    artifacts.write_bytes(folder / config.PARAMS, text.encode())
    for line in other_code(about):
        print(f"to be known: {line}")
    print(f"merged into {folder}: {', '.join(path.name for path in folders)}; commit it")


if __name__ == "__main__":
    run(main)
