"""A study that was run in parts: what a part keeps, and how parts become one study again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from epsilens import artifacts, config
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.errors import ConfigError
from epsilens.reporting.config import StudyConfig
from epsilens.reporting.report import Inputs

FOLDER = "parts"
FRAMES = ("attacks", "scores", "audited", "traits")  # of Inputs, each a table of rows
REST = "inputs.json"  # of Inputs, all else that tables and figures are made from


def write(folder: Path, inputs: Inputs) -> None:
    """Keep what tables and figures of a study are made from. Scores are kept in float32, in which networks compute."""
    for name in FRAMES:
        frame = getattr(inputs, name)
        if len(frame):
            artifacts.write_bytes(folder / f"{name}.parquet", _compact(frame))
    rest = {
        "gates": [[*network, gate] for network, gate in sorted(inputs.gates.items())],
        "histories": [[*network, list(history)] for network, history in sorted(inputs.histories.items())],
        "facts": inputs.facts,
        "manifest": inputs.manifest,
    }
    artifacts.write_json(folder / REST, rest)


def _compact(frame: pd.DataFrame) -> bytes:
    scores = list(frame.select_dtypes("float64").columns.difference(["epsilon", "budget"]))
    table = pa.Table.from_pandas(frame.astype(dict.fromkeys(scores, "float32")), preserve_index=False)
    others: Any = [name for name in table.column_names if name not in scores]
    sink, split = pa.BufferOutputStream(), cast("Any", scores)  # stubs know of neither list
    pq.write_table(table, sink, compression="zstd", use_dictionary=others, use_byte_stream_split=split)
    return sink.getvalue().to_pybytes()


def read(folder: Path) -> Inputs:
    """A part as it was written; without gallery and provenance. Raises ConfigError or DataError."""
    raw, rest = config.read(folder / config.PARAMS), artifacts.read_json(folder / REST)
    frames = {name: _frame(folder / f"{name}.parquet") for name in FRAMES}
    return Inputs(
        study=config.section(raw, "study", StudyConfig),
        norm=config.section(raw, "threat", ThreatConfig).norm,
        budget=config.section(raw, "attack", AttackConfig).epsilon,
        gates={(epsilon, seed): gate for epsilon, seed, gate in rest["gates"]},
        histories={(epsilon, seed): history for epsilon, seed, history in rest["histories"]},
        facts=rest["facts"],
        manifest=rest["manifest"],
        galleries={},
        provenance={},
        params=raw,
        **frames,
    )


def _frame(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame()
    found = artifacts.read_rows(path).to_pandas()
    return found.astype(dict.fromkeys(found.select_dtypes("float32").columns, "float64"))


def merge(parts: Mapping[str, Inputs]) -> Inputs:
    """The study that the parts, by name, are of. Raises ConfigError where they are of different ones or share a network."""
    first, *others = parts.values()
    for name, part in list(parts.items())[1:]:
        differing = [key for key in first.params if key != "sweep" and first.params[key] != part.params.get(key)]
        differing += [key for key in ("facts", "manifest") if getattr(first, key) != getattr(part, key)]
        if differing:
            raise ConfigError(f"merge: {name}: {', '.join(differing)} differ from those of {next(iter(parts))}")
    there = [network for part in parts.values() for network in networks(part)]
    twice = sorted({network for network in there if there.count(network) > 1})
    if twice:
        raise ConfigError(
            f"merge: epsilon {twice[0][0]:g}, seed {twice[0][1]} is in two of the parts {', '.join(parts)}"
        )
    everything = (first, *others)
    sweeps = [part.params["sweep"] for part in everything]
    sweep = {axis: sorted({value for sweep in sweeps for value in sweep[axis]}) for axis in ("epsilons", "seeds")}
    frames = {name: pd.concat([getattr(part, name) for part in everything], ignore_index=True) for name in FRAMES}
    return replace(
        first,
        gates={network: gate for part in everything for network, gate in part.gates.items()},
        histories={network: history for part in everything for network, history in part.histories.items()},
        params={**first.params, "sweep": sweep},
        **frames,
    )


def networks(part: Inputs) -> Sequence[tuple[Any, ...]]:
    """The (epsilon, seed) of each."""
    return list(part.attacks[["epsilon", "seed"]].drop_duplicates().itertuples(index=False, name=None))
