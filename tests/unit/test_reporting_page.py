"""The page as a document: its sections, the slots for what a study may have, colours that change at night."""

import re

import pytest

from epsilens.reporting import page
from epsilens.reporting.page import ROOM, SECTIONS, SLOTS, inline
from epsilens.reporting.report import content, draw, tabulate
from epsilens.reporting.style import COLOURS, INK, PROPERTIES
from tests.unit.test_reporting_report import CONFIG, EVIL, Page, study

ROWS = [
    {"claim": "more concise", "estimate": 0.25, "interval": [0.125, None], "p": 0.001, "verdict": "supported", "n": 17},
    {"claim": EVIL, "estimate": None, "interval": None, "p": None, "verdict": "undecided", "n": 3, "late": True},
]
LINE = {"scope": "training", "n": "2 seeds", "verdict": "contradicted", "badge": "✗", "estimate": "+0.1",
        "interval": "95 %", "p": "no test", "why": EVIL}  # fmt: skip
CARD = {"claim": EVIL, "figure": "claim-none", "statement": EVIL, "decides": EVIL, "methods": [EVIL],
        "cases": [{"measured": EVIL, "lines": [LINE]}]}  # fmt: skip
WORDS = {
    "claims": [CARD],
    "tally": [EVIL],
    "choice": {"answer": EVIL, "why": "Because.", "knees": EVIL},
    "looks": [EVIL],
    "confounds": [EVIL],
}
TABLES = {"claims_table": "claims", "recommendation": "trade-off", "plausible": "plausible", "audit": "audit"}


@pytest.fixture(scope="module")
def filled():
    """The content of a page of a made-up study."""
    inputs = study(epsilons=(0.0, 8.0), images=6)
    tables = tabulate(inputs, CONFIG)
    drawn = {name: sheet.svg() for name, sheet in draw(inputs, tables, CONFIG).items()}
    return content(inputs, tables, CONFIG, drawn)


def entries(html):
    return re.findall(r'<li><a href="#([\w-]+)">', html)


def test_answers_first_then_cautions_figures_gallery_tables_provenance(filled):
    html = page.render(filled).decode()
    assert entries(html) == [
        "answers", "claims", "trust", "accuracy", "trade-off", "explanations", "plausible", "gallery", "metrics",
        "training", "tables", "definitions", "provenance",
    ]  # fmt: skip
    assert re.findall(r'<section id="([\w-]+)">', html) == entries(html)


def section(html, name):
    return html[html.index(f'<section id="{name}">') :].partition("</section>")[0]


@pytest.mark.parametrize(("slot", "name"), TABLES.items())
def test_a_table_is_folded_away_where_a_study_has_it(filled, slot, name):
    html = page.render({**filled, "claims": [CARD], slot: ROWS}).decode()
    assert name in entries(html)
    part = section(html, name)
    folded = part[part.index("<details>") : part.index("</details>")]
    shares = {"plausible", "audit"}  # their intervals are in per cent
    assert ("12.5 % to –" if slot in shares else "0.125 to –") in folded
    assert re.search(r'<td class=" verdict supported">supported</td>', folded)
    assert re.search(r'<th scope="col" class="n">estimate</th>', folded)
    assert re.search(r'<th scope="col">late</th>', folded)
    assert EVIL not in html
    Page(html)


def test_sentences_and_cards_are_shown_and_escaped(filled):
    html = page.render({**filled, **WORDS, "audit": ROWS}).decode()
    assert EVIL not in html
    for name in ("claims", "trade-off", "plausible", "audit"):
        assert "alert(&#34;1&#34;)" in section(html, name)
    assert re.search(r'<span class="badge contradicted"><span aria-hidden="true">✗</span> contradicted</span>', html)
    assert set(WORDS) | set(TABLES) == set(SLOTS)
    Page(html)


def test_without_claims_choice_or_looks_there_is_no_such_section(filled):
    figures = {name: svg for name, svg in filled["figures"].items() if not name.startswith("trade-off")}
    html = page.render({**filled, **dict.fromkeys(SLOTS, ()), "figures": figures}).decode()
    assert not {"claims", "trade-off", "plausible", "audit"} & set(entries(html))


def test_the_figures_of_the_answers_are_on_the_page(filled):
    html = page.render(filled).decode()
    for name, place in {
        "claim-more-concise": "claims",
        "plausible-auroc": "plausible",
        "trade-off-gini": "trade-off",
    }.items():
        assert name in filled["figures"]
        assert f'id="{name}-figure_1"' in section(html, place)


def test_every_section_has_its_template_and_no_template_is_left_over():
    templates = {path.name for path in (ROOM / "sections").glob("*.j2")}
    assert templates == {f"{section.name}.html.j2" for section in SECTIONS}


def test_colours_of_figures_become_properties_of_the_page(filled):
    drawn = f'<g style="fill: {INK}; stroke: #123456"><use href="#a"/></g>'
    svg = f'<svg width="2pt" height="1pt" viewBox="0 0 2 1">{drawn}</svg>'
    assert str(inline(b"<?xml?>" + svg.encode())) == (
        '<svg viewBox="0 0 2 1"><g style="fill: var(--ink); stroke: #123456"><use href="#a"/></g></svg>'
    )
    figures = re.findall(r"<figure>.*?</figure>", page.render(filled).decode(), re.DOTALL)
    assert figures
    for colour in PROPERTIES:
        assert not any(f": {colour}" in figure for figure in figures)


def test_the_page_knows_each_property_by_day_and_by_night():
    day, night = (ROOM / "page.css").read_text(encoding="utf-8").split("prefers-color-scheme: dark")
    for colour, name in PROPERTIES.items():
        assert f"{name}: {colour};" in day
        assert f"{name}: #" in night
    assert len(set(PROPERTIES.values())) == len(PROPERTIES)
    assert "#000000" not in {colour.lower() for colour in COLOURS}  # SVG leaves it unsaid


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("time", [0, 1], ids=["day", "night"])
def test_text_can_be_read_and_lines_can_be_seen(time):
    """Contrast of WCAG 2.2: 4.5 for text; 2 for lines, which have markers and dashes too."""
    css = (ROOM / "page.css").read_text(encoding="utf-8").split("prefers-color-scheme: dark")[time]
    colours = dict(re.findall(r"(--[\w]+): (#[0-9a-f]{6});", css))

    def contrast(name, ground):
        high, low = sorted((_luminance(colours[name]), _luminance(colours[ground])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for name in ("--ink", "--soft", "--accent", "--warn", "--good"):
        assert min(contrast(name, "--page"), contrast(name, "--card")) >= 4.5, name
    for i in range(len(COLOURS)):
        assert contrast(f"--c{i}", "--card") >= 2, i
