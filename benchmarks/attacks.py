"""Claim: AutoAttack here gives the verdicts of the reference, for less than two thirds of its CPU time (target: ratio 1.5).

The reference is pyautoattack 0.2.0 (bit-identical to the authors' code), on the same network, images and budget. Both attack
the images part by part, in turns (A B B A ...); the CPU time of the whole process is summed. The last line is JSON.

Without options the network is that of the default study at epsilon 8, trained here (two minutes). With a study at hand:
    python benchmarks/attacks.py --model models/eps-4/seed-0 --data data/prepared --budget 4 --images 512
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from epsilens import attacks
from epsilens.attacks import STANDARD, SURVIVED, Setting, ThreatModel
from epsilens.data.manifest import read_split
from epsilens.data.splits import part_of
from epsilens.models.checkpoints import load
from epsilens.models.folding import Folded
from epsilens.processes import keep_freed_memory
from epsilens.types import Samples

ROOT = Path(__file__).resolve().parent.parent
NORMS: dict[str, Literal["Linf", "L2"]] = {"linf": "Linf", "l2": "L2"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a network; without it one is trained")
    parser.add_argument("--data", type=Path, default=ROOT / "data/prepared", help="prepared data of that network")
    parser.add_argument("--norm", choices=NORMS, default="linf")
    parser.add_argument("--budget", type=float, default=8.0, help="Linf in 1/255, L2 in [0, 1]-pixel norm")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--part", type=int, default=128, help="images attacked at once")
    return parser.parse_args()


def default_network(folder: Path) -> tuple[Path, Path]:
    """The embedded data and the network of the default study at epsilon 8, seed 0, in a temporary folder."""
    shutil.copy(ROOT / "studies/shapes.yaml", folder / "params.yaml")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EPSILENS_LIVE": "0"}
    for stage in (["stages.prepare"], ["stages.train", "--epsilon", "8", "--seed", "0"]):
        subprocess.run([sys.executable, "-m", *stage], cwd=folder, env=environment, check=True)
    return folder / "models/eps-8/seed-0", folder / "data/prepared"


def ours(network: nn.Module, samples: Samples, threat: ThreatModel) -> Tensor:
    """Which images survive, [N]."""
    members = [attacks.bound(name, given, "benchmark") for name, given in STANDARD.items()]
    setting = Setting(Folded(network).predict, network, threat, 0, len(samples))
    ledger = attacks.open_ledger(network, samples, len(samples))
    attacks.run(members, samples, setting, ledger, lambda _: None)
    return ledger.broken_by == SURVIVED


def reference(network: nn.Module, samples: Samples, threat: ThreatModel) -> Tensor:
    """Which images survive, [N]; the network as its users have it, not in channels_last."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # stubs lack it
    attack = AutoAttack(network, norm=NORMS[threat.norm], eps=threat.epsilon, seed=0, device="cpu")
    found, _ = attack.run_standard_evaluation(samples.pixels(), samples.labels, batch_size=len(samples))
    with torch.no_grad():
        return network(found).argmax(dim=1) == samples.labels


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as folder:
        model, data = (given.model, given.data) if given.model else default_network(Path(folder))
        network = load(model, "cpu")
        samples = part_of(read_split(data, "test"), given.images, 0, "--images")
    keep_freed_memory()  # for both
    threat = ThreatModel.of(given.norm, given.budget)
    variants: dict[str, Callable[..., Tensor]] = {"ours": ours, "reference": reference}
    spent, survived = ({name: [] for name in variants} for _ in range(2))
    for turn, rows in enumerate(torch.arange(len(samples)).split(given.part)):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            started = time.process_time()
            survived[name].append(variants[name](network, samples[rows], threat))
            spent[name].append(time.process_time() - started)
            left, seconds = int(survived[name][-1].sum()), spent[name][-1]
            print(f"{name:10s} part {turn}: {left} of {len(rows)} survive, {seconds:.1f} s of CPU", flush=True)
    accuracy = {name: float(torch.cat(found).double().mean()) for name, found in survived.items()}
    different = int((torch.cat(survived["ours"]) != torch.cat(survived["reference"])).sum())
    print(
        json.dumps(
            {
                "ratio": round(sum(spent["reference"]) / sum(spent["ours"]), 3),
                "accuracy_ours": accuracy["ours"],
                "accuracy_reference": accuracy["reference"],
                "different_verdicts": different,
                "images": len(samples),
                "norm": given.norm,
                "budget": given.budget,
            }
        )
    )


if __name__ == "__main__":
    main()
