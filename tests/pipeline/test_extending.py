"""docs/extend.md, tried as it says: its examples are pasted into a copy of the project, tested, and run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

SECTIONS = ("A metric", "An attribution method", "A network", "A data set")
BLOCK = re.compile(r"(?P<text>(?:^(?!```).*\n)*)```(?P<kind>\w*)\n(?P<code>(?:^(?!```).*\n)*)```\n", re.MULTILINE)
PLACE = re.compile(r"`([\w/]+\.(?:py|md))`")


def sections(page: str) -> dict[str, list[tuple[str, str, str]]]:
    """(the words before it, its kind, the code) of each block, by section."""
    parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)[1:]
    blocks = [[(m["text"], m["kind"], m["code"]) for m in BLOCK.finditer(text)] for text in parts[1::2]]
    return dict(zip(parts[::2], blocks, strict=True))


def paste(folder: Path, words: str, code: str) -> None:
    """Put the code where the words before it say."""
    path = folder / PLACE.findall(words)[-1 if "in a new file" in words else 0]
    if "in a new file" in words:
        assert not path.exists()
        path.write_text(code, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    if "at the end of the table" in words:
        above = text.index("\n\n", text.index("\n|", text.index("## Conciseness")) + 1) + 1
        text = text[:above] + code + text[above:]
    elif "at the end of" in words:
        text = f"{text}\n\n{code}"
    elif "below the imports" in words:
        last = list(re.finditer(r"^from epsilens\..*\n", text, flags=re.MULTILINE))[-1].end()
        text = text[:last] + code + text[last:]
    else:
        name = re.findall(r"\bin `([A-Z]+)` of", words)[-1]
        end = text.index("\n}\n", re.search(rf"^{name}\b.* = {{\n", text, flags=re.MULTILINE).start()) + 1  # type: ignore[union-attr]  # a missing one fails the test
        text = text[:end] + code + text[end:]
    path.write_text(text, encoding="utf-8")


def laid_over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """As a reader edits params.yaml: a member is added to the others, options are those of the new name."""
    both = base.keys() & changes.keys() - {"options"}
    deeper = {key: laid_over(base[key], changes[key]) for key in both if isinstance(changes[key], dict)}
    return base | changes | deeper


@pytest.fixture(scope="module")
def extended(root: Path, tmp_path_factory: pytest.TempPathFactory, fresh: Any) -> Any:  # of conftest
    """The toy study in which every example of the page was followed, and the tests that the page names."""
    project = fresh(tmp_path_factory.mktemp("extended"))
    for name in ("tests", "docs", "pyproject.toml", "Makefile"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, project.folder / name)
    commands: list[str] = []
    page = (root / "docs" / "extend.md").read_text(encoding="utf-8")
    found = sections(page)
    for name in SECTIONS:
        for words, kind, code in found[name]:
            if kind == "yaml":
                path = project.folder / "params.yaml"
                changed = laid_over(yaml.safe_load(path.read_text(encoding="utf-8")), yaml.safe_load(code))
                path.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
            elif kind:
                paste(project.folder, words, code)
            else:
                commands.append(code.strip())
    return project, commands


def test_every_section_has_its_blocks(root: Path) -> None:
    found = sections((root / "docs" / "extend.md").read_text(encoding="utf-8"))
    assert tuple(found) == SECTIONS
    for name, blocks in found.items():
        kinds = [kind for _, kind, _ in blocks]
        assert kinds.count("python") >= 3, name
        assert kinds[-2:] == ["", "yaml"] or kinds[-3:] == ["", "yaml", ""], name


def test_the_examples_pass_their_tests_and_those_of_all_members(extended: Any) -> None:
    project, commands = extended
    assert len(commands) == len(SECTIONS)
    for command in commands:
        asked = [*command.split(), "-p", "no:cacheprovider"]
        if "tests/house" in asked:  # without what needs the recorded studies, or networks trained for a picture
            asked += ["-k", "not picture and not committed"]
            asked += [f"--ignore=tests/house/test_{name}.py" for name in ("studies", "results")]
        project.run(*asked)
    output = project.run("python", "-m", "pytest", "-q", "tests/house/test_docs.py", status=1)
    assert "top_share is in no picture" in output
    assert "1 failed" in output


def test_the_examples_run_together(extended: Any) -> None:
    project, _ = extended
    raw = project.folder / "raw"
    raw.mkdir()
    draw = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = draw.integers(0, 120, (240, 3, 16, 16), dtype=np.uint8) + 60 * labels.astype(np.uint8)[:, None, None, None]
    np.savez(raw / "mine.npz", images=images, labels=labels, names=np.array(["dark", "grey", "light"]))
    output = project.run("python", "-m", "stages.validate")
    assert "2 networks" in output
    project.run("dvc", "repro", EPSILENS_DATA=str(raw))
    summary = (project.folder / "metrics" / "quality.csv").read_text(encoding="utf-8")
    for name in ("top_share", "gradient_x_contrast"):
        assert name in summary
    assert '"architecture": "plain_cnn"' in next((project.folder / "models").rglob("*.json")).read_text(
        encoding="utf-8"
    )
