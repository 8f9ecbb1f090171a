"""The pages in a real browser, chromium, where there is one: an outer page opens them in a frame as wide as a phone."""

import itertools
import json
import re
import shutil
import subprocess

import pytest

from tests.unit.test_reporting_compare import pages
from tests.unit.test_reporting_report import built, study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--allow-file-access-from-files",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--blink-settings=preferredColorScheme=0", "--enable-logging=stderr",
    "--window-size=1280,900", "--hide-scrollbars", "--dump-dom",
)  # fmt: skip
PHONE = 390  # CSS pixels

# Runs in the outer page as soon as the frame has loaded; what it finds is JSON in <pre>.
SCRIPT = """
const view = frame.contentWindow, page = frame.contentDocument, found = {};
const column = (table, i) => [...table.tBodies[0].rows].map((row) => row.cells[i].textContent);
found.loaded = view.performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
found.width = page.documentElement.scrollWidth;
found.background = view.getComputedStyle(page.body).backgroundColor;
found.ink = view.getComputedStyle(page.querySelector("figure svg [id*='-text_'] g")).fill;
found.anchors = [...page.querySelectorAll("nav a")].map((a) => page.querySelector(a.getAttribute("href")) !== null);
found.sorted = [];
const table = page.querySelector("SUBJECT table.sortable");
const heads = [...table.tHead.rows[0].cells];
for (const i of [0, 1, 2, 3, 4, 5]) {
  for (const press of [1, 2]) {
    heads[i].querySelector("button").click();
    found.sorted.push({
      numeric: heads[i].classList.contains("n"), aria: heads.map((head) => head.getAttribute("aria-sort")), column: i,
      cells: column(table, i),
    });
  }
}
const mark = page.querySelector("figure svg .tip");
mark.dispatchEvent(new view.PointerEvent("pointerenter"));
found.tip = page.querySelector(".tooltip").hidden ? null : page.querySelector(".tooltip").textContent;
const entry = page.querySelector(".legend button");
if (entry) {
  entry.click();
  found.pressed = [...page.querySelectorAll(".legend button")].map((b) => b.getAttribute("aria-pressed"));
  found.quiet = [...page.querySelectorAll("svg [id*='-series-']")].map((s) => [s.id, s.classList.contains("quiet")]);
  entry.click();
  found.after = page.querySelectorAll("svg .quiet").length;
}
const filter = page.querySelector("SUBJECT .filter");
if (filter) {
  filter.value = "PGD  linf";
  filter.dispatchEvent(new view.Event("input"));
  const rows = [...filter.nextElementSibling.querySelectorAll("tbody tr")];
  found.filtered = rows.filter((row) => !row.hidden).map((row) => row.textContent);
  found.hidden = rows.filter((row) => row.hidden).length;
}
document.querySelector("pre").textContent = JSON.stringify(found);
"""


def opened(folder, page, subject):
    """What SCRIPT finds on a page, and what the browser says on its console."""
    (folder / "page.html").write_bytes(page)
    frame = f'<iframe id="frame" src="page.html" width="{PHONE}" height="800" style="border: 0"></iframe>'
    script = f"<script>frame.onload = () => {{ {SCRIPT.replace('SUBJECT', subject)} }};</script>"
    (folder / "outer.html").write_text(f"<!doctype html><meta charset=utf-8><pre></pre>{frame}{script}", "utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", (folder / "outer.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    found = re.search(r"<pre>(\{.*?\})</pre>", done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert found, (console, done.stdout[:500])
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\N{NO-BREAK SPACE}")
    return json.loads(text.replace("&amp;", "&")), console


def value(text):
    number = re.match(r"[−\d.]+", text)
    return float(number[0].replace("−", "-")) if number else None


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("report"), built(study())["index.html"], "#tables")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("comparison"), pages(), "#headlines")


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_page_is_whole_on_a_phone_at_night_and_loads_nothing(which, request):
    found, console = request.getfixturevalue(which)
    assert console == []
    assert found["loaded"] == []
    assert found["width"] == PHONE
    assert found["background"] == "rgb(18, 22, 27)"
    assert found["ink"] == "rgb(228, 233, 238)"  # figures follow
    assert all(found["anchors"])


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_click_sorts_and_says_so(which, request):
    found, _ = request.getfixturevalue(which)
    kinds = set()
    for up, down in zip(found["sorted"][::2], found["sorted"][1::2], strict=True):
        for state, word in ((up, "ascending"), (down, "descending")):
            assert {i: name for i, name in enumerate(state["aria"]) if name} == {state["column"]: word}
        first, second = (_runs(state) for state in (up, down))
        assert first == second[::-1]
        assert len(first) == len(set(first))  # equal cells lie together
        if up["numeric"]:
            assert first == sorted(first)
            for state in (up, down):  # what is undefined comes last
                defined = [value(cell) is not None for cell in state["cells"]]
                assert defined == sorted(defined, reverse=True)
        kinds |= {up["numeric"]} if len(first) > 1 else set()
    assert kinds == {True, False}


def _runs(state):
    """The different cells of a column from top to bottom, once each; the defined ones where it holds numbers."""
    cells = [value(cell) for cell in state["cells"]] if state["numeric"] else state["cells"]
    return [cell for cell, _ in itertools.groupby(cells) if cell is not None]


def test_a_mark_tells_its_numbers_and_a_legend_sets_lines_off(report):
    found, _ = report
    assert re.match(r"training ε = \d, seed \d: [\d.]+ %", found["tip"])
    assert found["pressed"] == ["true", "false", "false"] * 2  # in both legends
    assert {quiet for name, quiet in found["quiet"] if "-series-0." in name} == {False}
    assert {quiet for name, quiet in found["quiet"] if "-series-0." not in name} == {True}
    assert found["after"] == 0


def test_a_filter_shows_the_rows_with_all_its_words(report):
    found, _ = report
    assert found["filtered"]
    assert all("pgd" in row and "linf" in row for row in found["filtered"])
    assert found["hidden"] > 0
