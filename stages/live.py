"""Draw the curves of the trainings at work in MLflow, best effort; a training starts this, detached."""

from __future__ import annotations

from epsilens.tracking.live import follow
from epsilens.tracking.store import home

IDLE = 3600.0  # seconds without a new epoch
POLL = 2.0  # seconds


def main() -> None:
    follow(home(), IDLE, POLL)


if __name__ == "__main__":
    main()  # not stages.common.run: it outlives the dvc that started its training, and `follow` never raises
