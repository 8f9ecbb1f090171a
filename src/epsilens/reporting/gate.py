"""The gate: whose accuracies may be trusted, which networks the headline numbers are of, and what broke the images.

A network that hides its gradients looks robust because attacks that follow them are led astray (Athalye et al. 2018,
arXiv:1802.00420). It is listed with its verdict, and left out of whatever compares networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from epsilens.errors import DataError

Row = dict[str, Any]
Network = tuple[float, int]  # training epsilon, seed
Gates = Mapping[Network, Mapping[str, Any]]  # of each network its gate.json: sound, flags, checks

SOUND, NOT_RUN = "sound", "not run"
ENSEMBLES = ("autoattack", "ensemble")  # the standard version, and any other set of attacks or numbers
BREAKERS = ("clean", "apgd_ce", "apgd_t", "fab_t", "square")  # AutoAttack's parts, in the order in which they run


@dataclass(frozen=True)
class Selection:
    """Which networks the headline numbers are of: those that passed the gate, or all where none passed or none ran."""

    networks: tuple[Network, ...]
    gates: Gates

    @property
    def masked(self) -> tuple[Network, ...]:
        """The networks that did not pass."""
        return tuple(network for network in self.networks if network in self.gates and not self.gates[network]["sound"])

    @property
    def none_passed(self) -> bool:
        """Then there is nothing to fall back on: all are shown, with a warning."""
        return bool(self.masked) and len(self.masked) == len(self.networks)

    @property
    def left_out(self) -> tuple[Network, ...]:
        """The networks that no headline number contains."""
        return () if self.none_passed else self.masked

    @property
    def kept(self) -> tuple[Network, ...]:
        """The networks of the headline numbers."""
        return tuple(network for network in self.networks if network not in self.left_out)

    @property
    def missing(self) -> list[float]:
        """Training epsilons of which no network is left."""
        return sorted({epsilon for epsilon, _ in self.networks} - {epsilon for epsilon, _ in self.kept})

    def verdict(self, network: Network) -> str:
        """`sound`, or the names of the checks that failed, or `not run`."""
        if network not in self.gates:
            return NOT_RUN
        gate = self.gates[network]
        return SOUND if gate["sound"] else ", ".join(gate["flags"]) or "not sound"

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of the networks that are kept; of an empty table none."""
        if rows.empty:
            return rows
        kept = set(self.kept)
        return rows.loc[[network in kept for network in zip(rows["epsilon"], rows["seed"], strict=True)]]


def selection(rows: pd.DataFrame, gates: Gates) -> Selection:
    """From the rows of all networks and their gates. Raises DataError if some networks have a gate and others none."""
    pairs = rows[["epsilon", "seed"]].drop_duplicates().itertuples(index=False, name=None)
    networks = tuple(sorted((float(epsilon), int(seed)) for epsilon, seed in pairs))
    without = [f"epsilon {epsilon:g}, seed {seed}" for epsilon, seed in networks if (epsilon, seed) not in gates]
    if gates and without:
        raise DataError(f"gate: no verdict for {'; '.join(without)}; run `attack` again")
    return Selection(networks, gates)


def is_masked(row: Mapping[str, Any]) -> bool:
    """Whether a row of the table of networks is of one that did not pass."""
    return row["gate"] not in (SOUND, NOT_RUN)


def gate_table(chosen: Selection) -> list[Row]:
    """One row a network and check; `value` is None where the check could not be made."""
    return [
        {"epsilon": epsilon, "seed": seed, "sound": bool(chosen.gates[epsilon, seed]["sound"]), "check": check["name"]}
        | {key: check[key] for key in ("label", "value", "limit", "failed", "source")}
        for epsilon, seed in chosen.networks
        if (epsilon, seed) in chosen.gates
        for check in chosen.gates[epsilon, seed]["checks"]
    ]


def breakage_table(attacks: pd.DataFrame, chosen: Selection, *, norm: str, budget: float) -> list[Row]:
    """One row a network under an ensemble: the shares of the images that were wrong anyway, that each of its attacks
    broke first, and that survived. They add up to 1.

    Attacks that broke nothing have no column where the ensemble is not AutoAttack.
    """
    headline = (attacks["split"] == "test") & (attacks["norm"] == norm) & (attacks["budget"] == budget)
    rows = attacks.loc[headline & attacks["attack"].isin(ENSEMBLES)]
    if rows.empty:
        return []
    seen = set(rows["broken_by"]) - {""}
    parts = [name for name in BREAKERS if name == "clean" or name in seen or "autoattack" in set(rows["attack"])]
    parts += sorted(seen - set(parts))
    groups: Any = rows.groupby(["epsilon", "seed", "attack"])  # the stubs take the keys of groups for scalars
    found = []
    for (epsilon, seed, attack), part in groups:
        shares = part["broken_by"].value_counts(normalize=True)
        known = {"epsilon": float(epsilon), "seed": int(seed), "attack": attack, "n_images": len(part)}
        named = {name: float(shares.get(name, 0.0)) for name in parts}
        ends = {"survived": float(shares.get("", 0.0)), "gate": chosen.verdict((float(epsilon), int(seed)))}
        found.append(known | named | ends)
    return found
