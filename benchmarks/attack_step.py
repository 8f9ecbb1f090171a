"""Claim: a PGD step costs what one forward pass and one gradient with respect to the input cost (target: 1.02 times).

Interleaved (A B A B ...), medians of CPU time, the default small network; the last line is JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from epsilens.attacks import ThreatModel, pgd
from epsilens.models import build

STEPS, ROUNDS = 7, 15


def main() -> None:
    torch.manual_seed(0)
    network = build("small_resnet", {"width": 32, "stem_stride": 2}, 10, [0.5] * 3, [0.25] * 3, seed=0)
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    images, labels = torch.rand(64, 3, 32, 32), torch.randint(10, (64,))
    threat = ThreatModel.of("linf", 8)

    def attack() -> None:
        pgd(network, images, labels, threat, images, steps=STEPS, step_size=threat.epsilon / 4)

    def floor() -> None:
        for _ in range(STEPS):
            x = images.clone().requires_grad_()
            torch.autograd.grad(F.cross_entropy(network(x), labels, reduction="sum"), x)

    variants: dict[str, Callable[[], None]] = {"forward + input gradient": floor, "PGD": attack}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:28s} {1000 * median / STEPS / len(images):8.3f} ms of CPU an image and step")
    print(json.dumps({"ratio": round(medians["PGD"] / medians["forward + input gradient"], 4)}))


if __name__ == "__main__":
    main()
