"""One self-contained HTML page: nothing is loaded from outside, everything that comes from data is escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from epsilens.reporting.gate import is_masked
from epsilens.reporting.words import number, percent

ROOM = Path(__file__).parent
TEMPLATE = "page.html.j2"


def render(content: Mapping[str, Any]) -> bytes:
    """The page for `content` (see the template for its keys). `figures` maps names to SVG bytes."""
    environment = Environment(
        loader=FileSystemLoader(ROOM), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "percent": percent, "epsilon": "{:g}".format}
    environment.tests["masked"] = is_masked  # a row of the tables that have a column `gate`
    style, script = ((ROOM / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    figures = {name: Markup(_inline(svg)) for name, svg in content["figures"].items()}
    page = environment.get_template(TEMPLATE).render(
        **{**content, "figures": figures}, style=Markup(style), script=Markup(script), script_hash=_hash(script)
    )
    return page.encode()


def _inline(svg: bytes) -> str:
    """An SVG document without what only a file of its own has: XML declaration, document type, fixed size."""
    body = svg.decode().partition("<svg")[2]
    head, close, rest = body.partition(">")
    return "<svg" + re.sub(r'\b(?:width|height)="[^"]*pt" ?', "", head) + close + rest


def _hash(script: str) -> str:
    """For the content security policy: the browser runs this script and no other, whatever a class is called."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
