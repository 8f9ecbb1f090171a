"""On what recorded numbers were obtained, and how they can be obtained again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from epsilens import artifacts, config
from epsilens.data.manifest import read_manifest
from epsilens.reporting.config import StudyConfig, SweepConfig
from stages.common import durations
from stages.forecast import LOCK, kind, medians

PACKAGES = ("torch", "torchvision", "robustness", "captum", "numpy")
CODE = ("src/", "stages/")
OWN = ("seconds", "machine", "versions", "code")  # what parts of a study may differ in


def provenance(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Of the present results, which are those of `raw`, all parameters."""
    study, manifest = config.section(raw, "study", StudyConfig).name, read_manifest(artifacts.PREPARED)
    cells = {f"{epsilon}-{seed}" for epsilon, seed in config.section(raw, "sweep", SweepConfig).grid()}
    lines = [line for line in durations() if line["study"] == study and line["stage"].partition("@")[2] in {"", *cells}]
    last = {line["stage"]: line.get("threads") for line in lines}
    trained = [last.get(f"train@{cell}") for cell in sorted(cells)]
    threads = sorted({count for count in trained if count})
    set_threads = f"OMP_NUM_THREADS={threads[0]} " if trained == threads * len(trained) else ""
    return {
        "command": f"make study NAME={study} && {set_threads}dvc repro",
        "seconds": medians(lines),
        "machine": {  # on which this is recorded: results that were unpacked here may be of another
            "architecture": platform.machine(),
            "processor": processor(),  # rounding, and so training, differs with it
            "instructions": torch.backends.cpu.get_cpu_capability(),  # and with them
            "cores": os.cpu_count(),
            "threads": threads,  # of a network's training; rounding differs with it, too
            "cuda": torch.cuda.is_available(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "code": code(config.read(LOCK)["stages"], cells),
        "data": {"sources": manifest["sources"], "splits": manifest["splits"], "duplicates": manifest["duplicates"]},
    }


def processor() -> str:
    """Its name, where the system tells it; else empty."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def code(stages: Mapping[str, Any], cells: Collection[str]) -> dict[str, str]:
    """Of each kind of stage that made these networks, a digest of the code that it ran. stages: of dvc.lock."""
    found: dict[str, set[str]] = {}
    for name, stage in stages.items():
        if name.partition("@")[2] in cells:
            files = sorted((dep["path"], dep["md5"]) for dep in stage["deps"] if dep["path"].startswith(CODE))
            found.setdefault(kind(name), set()).add(hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16])
    return {name: "+".join(sorted(digests)) for name, digests in found.items()}


def merged(study: str, folders: Mapping[Path, int]) -> dict[str, Any]:
    """Of a study that was run in parts. folders: of each part, how many networks it has.

    Data are those of all; `seconds` are means over networks of the parts' medians; what may differ stands under `parts`.
    """
    found = {folder.name: artifacts.read_json(folder / "provenance.json") for folder in folders}
    counts = {folder.name: count for folder, count in folders.items()}
    seconds = {}
    for name in dict.fromkeys(name for part in found.values() for name in part["seconds"]):
        of = {part: counts[part] for part in found if name in found[part]["seconds"]}
        total = sum(found[part]["seconds"][name] * count for part, count in of.items())
        seconds[name] = round(total / sum(of.values()), 1)
    shared = {key: value for key, value in next(iter(found.values())).items() if key not in OWN}
    own = {name: {key: part[key] for key in OWN if key in part} for name, part in found.items()}
    return shared | {"command": f"python -m stages.merge {study}", "seconds": seconds, "parts": own}


def other_code(about: Mapping[str, Any]) -> list[str]:
    """A line for each kind of stage that parts of a merged study have run with different code, where that is known."""
    lines = []
    for name in dict.fromkeys(name for part in about["parts"].values() for name in part.get("code", {})):
        by_digest: dict[str, list[str]] = {}
        for part, own in about["parts"].items():
            if name in own.get("code", {}):
                by_digest.setdefault(own["code"][name], []).append(part)
        if len(by_digest) > 1:
            lines.append(f"{name}: code differs between {' and '.join(map(', '.join, by_digest.values()))}")
    return lines
