"""A figure that is not drawn yet, and the bytes it becomes: SVG for a page, PDF for a paper, from the content alone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epsilens.reporting.style import LOOK

REACH = 6  # points: radius around a mark in which its numbers are shown
NO_DATES = {"Date": None, "Creator": None}
NO_DATES_PDF = {"CreationDate": None, "Creator": None, "Producer": None}


class Tip(NamedTuple):
    """What a reader is told who points at (x, y), in the coordinates of the axes."""

    axes: Axes
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Sheet:
    """`draw` fills an empty figure of `size` inches and returns the tips of its marks; `name` is unique on a page."""

    name: str
    size: tuple[float, float]
    draw: Callable[[Figure], Iterable[Tip] | None]

    def svg(self) -> bytes:
        """An SVG file; the same content gives the same bytes. Each tip is the `<title>` of an invisible circle."""
        return self._svg(with_legend=True)

    def panel(self) -> bytes:
        """The SVG without its legend and the room it took, for a page where one legend serves all."""
        return self._svg(with_legend=False)

    def pdf(self) -> bytes:
        """A PDF file with TrueType fonts embedded (type 42); the same content gives the same bytes."""
        with matplotlib.style.context(["default", LOOK | {"pdf.fonttype": 42}]):
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="pdf", metadata=NO_DATES_PDF)
        return buffer.getvalue()

    def _svg(self, *, with_legend: bool) -> bytes:
        with matplotlib.style.context(["default", LOOK | {"svg.hashsalt": self.name}]):
            figure = Figure(figsize=self.size, layout="constrained")
            tips = list(self.draw(figure) or ())
            if not with_legend:
                _remove_legends(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", metadata=NO_DATES)
            marks = "".join(_mark(figure, tip) for tip in tips)
        svg = own_ids(buffer.getvalue().decode(), self.name)
        return svg.replace("</svg>", f"<g>{marks}</g>\n</svg>" if marks else "</svg>").encode()


def _remove_legends(figure: Figure) -> None:
    """Take the figure's legends away, and as much of its height as they had."""
    width, height = figure.get_size_inches()
    for legend in list(figure.legends):
        height -= legend.get_window_extent().height / figure.dpi
        legend.remove()
    figure.set_size_inches(width, height)


def _mark(figure: Figure, tip: Tip) -> str:
    """Where the tip lies on the finished figure, in points from its upper left corner."""
    point = 72 / figure.dpi
    x, y = tip.axes.transData.transform((tip.x, tip.y)) * point
    below = figure.bbox.height * point - y
    title = f"<title>{escape(tip.text, quote=False)}</title>"
    return f'<circle class="tip" cx="{x:.1f}" cy="{below:.1f}" r="{REACH}" fill-opacity="0">{title}</circle>'


def own_ids(svg: str, name: str) -> str:
    """Every id and every reference to one with the figure's name before it, so that figures can share a page."""
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
