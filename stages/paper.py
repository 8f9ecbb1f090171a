"""Figures as PDF and tables for LaTeX and CSV in reports/paper, from the rows of the present results: no model, no GPU."""

import shutil

from epsilens import artifacts, config
from epsilens.reporting.config import ReportConfig
from epsilens.reporting.paper import build
from epsilens.reporting.report import tabulate
from stages.common import params, run
from stages.report import inputs


def main() -> None:
    raw = params()
    found, settings = inputs(raw), config.section(raw, "report", ReportConfig)
    tables = tabulate(found, settings)
    files = build(found, tables, settings)
    shutil.rmtree(artifacts.PAPER, ignore_errors=True)
    for name, content in files.items():
        artifacts.write_bytes(artifacts.PAPER / name, content)
    for path in artifacts.TABLES:
        artifacts.write_table(artifacts.PAPER / "tables" / f"{path.stem}.csv", getattr(tables, path.stem))
    print(f"paper: {artifacts.PAPER} (figures/*.pdf, tables/*.tex, tables/*.csv)")


if __name__ == "__main__":
    run(main)
