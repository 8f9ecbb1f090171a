"""One self-contained HTML page: nothing is loaded from outside, everything that comes from data is escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from epsilens.reporting.formats import ARROWS, DIRECTIONS, Form, number, percent
from epsilens.reporting.gate import is_masked
from epsilens.reporting.sheet import own_ids
from epsilens.reporting.style import PROPERTIES

ROOM = Path(__file__).parent
TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, which names its template in sections/ too, and its entry in the contents.

    needs: the keys of the content of which at least one must hold something; without, the section is always there.
    """

    name: str
    entry: str
    needs: tuple[str, ...] = ()

    def shown(self, content: Mapping[str, Any]) -> bool:
        """Whether there is anything to show."""
        return not self.needs or any(content[key] for key in self.needs)


# In the order of reading: what was found, how far to trust it, what it is seen from, and where it comes from.
SECTIONS = (
    Section("answers", "Answers"),
    Section("claims", "Claims", ("claims",)),
    Section("trust", "Trust"),
    Section("accuracy", "Accuracy"),
    Section("trade-off", "Trade-off", ("choice", "recommendation", "trade_offs")),
    Section("explanations", "Explanations"),
    Section("plausible", "Misleading but plausible", ("plausible",)),
    Section("audit", "Confounds", ("audit",)),
    Section("gallery", "Gallery", ("gallery",)),
    Section("metrics", "Other metrics", ("other_metrics",)),
    Section("training", "Training", ("training",)),
    Section("tables", "Tables"),
    Section("definitions", "Definitions"),
    Section("provenance", "Provenance"),
)
# What a study may have: sentences and cards, and lists of flat rows that a section shows as a table.
SLOTS = ("claims", "tally", "claims_table", "choice", "recommendation", "looks", "plausible", "confounds", "audit")


def render(content: Mapping[str, Any]) -> bytes:
    """The page for `content` (see sections/ for its keys). `figures` maps names to SVG bytes."""
    figures = {name: inline(svg) for name, svg in content["figures"].items()}
    legends = {place: _legend(content["legend"], place) for place in ("explanations", "metrics")}
    filled = {**dict.fromkeys(SLOTS, ()), **content, "figures": figures, "legends": legends}
    filled |= {
        "other_metrics": [name for name in content["metrics"] if name not in content["config"].metrics],
        "trade_offs": [name for name in figures if name.startswith("trade-off-")],
        "training": "training" in figures,
    }
    return fill(TEMPLATE, {**filled, "sections": [section for section in SECTIONS if section.shown(filled)]})


def _legend(entries: Sequence[Mapping[str, Any]], place: str) -> list[dict[str, Any]]:
    """The legend for one section, its pictures with ids of their own."""
    return [{**e, "picture": inline(own_ids(e["picture"].decode(), f"{place}-legend").encode())} for e in entries]


def fill(template: str, content: Mapping[str, Any]) -> bytes:
    """A template of this room with the style and the script of all its pages."""
    environment = Environment(
        loader=FileSystemLoader(ROOM), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "epsilon": "{:g}".format,
        "shown": _cell,
        "share": _share,
    }
    environment.filters |= {"columns": _columns, "direction": lambda better: DIRECTIONS[better or None]}
    environment.filters["arrow"] = lambda better: ARROWS[better or None]
    environment.tests["masked"] = is_masked  # a row of the tables that have a column `gate`
    style, script = ((ROOM / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    own = {"style": Markup(style), "script": Markup(script)}  # noqa: S704  # files of this room
    shared = {**own, "script_hash": _hash(script)}
    return environment.get_template(template).render(**content, **shared).encode()


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """The columns of flat rows in the order in which they occur, and whether each holds numbers."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [(name, all(_is_numeric(row.get(name)) for row in rows)) for name in names]


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list | tuple):  # an interval
        return all(map(_is_numeric, value))
    return value is None or (isinstance(value, Number) and not isinstance(value, bool))


def _cell(value: Any, form: Form = number) -> str:
    """A value of a flat row as text; a list of numbers is an interval."""
    if isinstance(value, list | tuple):
        return " to ".join(_cell(end, form) for end in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, float):
        return form(value)
    return str(value)


def _share(value: Any) -> str:
    """The same of shares of 1."""
    return _cell(value, percent)


def inline(svg: bytes) -> Markup:
    """An SVG document without what only a file of its own has (XML declaration, document type, fixed size, colours).

    Colours that the page knows become its custom properties, which change at night.
    """
    body = svg.decode().partition("<svg")[2]
    head, close, rest = body.partition(">")
    coloured = re.sub(r"\b(fill|stroke): (#[0-9a-f]{6})", _themed, rest)
    return Markup(  # noqa: S704  # drawn here; matplotlib escapes what is text in it
        "<svg" + re.sub(r'\b(?:width|height)="[^"]*pt" ?', "", head) + close + re.sub(r"\n *", "\n", coloured)
    )


def _themed(match: re.Match[str]) -> str:
    name = PROPERTIES.get(match[2])
    return f"{match[1]}: var({name})" if name else match[0]


def _hash(script: str) -> str:
    """For the content security policy: the browser runs this script and no other, whatever a class is called."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
