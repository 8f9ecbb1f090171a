"""Write the tables of README.md, docs/results.md and docs/cue.md anew, from what the studies have recorded under metrics/.

    python -m stages.results            # in seconds; a test holds the pages against it

No model is read. What can stand in a page, and how, is said in epsilens.reporting.results.
"""

import argparse
from pathlib import Path

from epsilens import artifacts
from epsilens.metrics import METRICS
from epsilens.reporting.results import filled
from stages.common import run

PAGES = ("README.md", "docs/results.md", "docs/cue.md")
LABELS = {name: metric.facts.label for name, metric in METRICS.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for page in PAGES:
        text = Path(page).read_text(encoding="utf-8")
        artifacts.write_bytes(Path(page), filled(text, LABELS).encode())


if __name__ == "__main__":
    run(main)
