"""The plan of the house: who may import whom, what a stage depends on, what importing does."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "epsilens"
HALL = {path.stem for path in PACKAGE.glob("*.py")}
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem not in ("__init__", "common"))
NEIGHBOURS = {"training": {"attacks"}}  # the one room that may use another


def module_file(name: str) -> Path | None:
    """The file of a dotted module of this project, or None for anything else."""
    base = ROOT / "src" if name.split(".")[0] == "epsilens" else ROOT
    path = base / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file() and name.split(".")[0] in ("epsilens", "stages"):
            return candidate
    return None


def imported(tree: ast.AST) -> set[str]:
    """Every name that may be a module in any import statement, at any depth of the file."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def direct(path: Path) -> frozenset[Path]:
    """The files of this project that a file imports, and the packages above them."""
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    names |= {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)}
    return frozenset(file for file in map(module_file, names) if file)


def reached(path: Path) -> set[Path]:
    """All that a file reaches by import, itself included."""
    seen, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += direct(file)
    return seen


def room(path: Path) -> str:
    """`attacks` for src/epsilens/attacks/pgd.py, the module's name for a file of the hall."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def pipeline() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_import_the_hall_only(name: str) -> None:
    allowed = HALL | {name} | NEIGHBOURS.get(name, set())
    for path in (PACKAGE / name).glob("*.py"):
        strange = {room(file) for file in direct(path)} - allowed
        assert not strange, f"{path.name} imports {strange}"


@pytest.mark.parametrize("name", sorted(HALL))
def test_the_hall_imports_no_room(name: str) -> None:
    assert {room(file) for file in direct(PACKAGE / f"{name}.py")} <= HALL


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_tracking_imports_mlflow_and_nothing_imports_dvc(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
    assert "dvc" not in tops
    assert "mlflow" not in tops or room(path) == "tracking"


@pytest.mark.parametrize("name", sorted(pipeline()))
def test_deps_are_what_the_stage_reaches(name: str) -> None:
    stage = pipeline()[name]
    deps = [ROOT / dep for dep in stage["deps"]]
    covered = {dep for dep in deps if dep.is_file()}
    for dep in deps:
        if dep.is_dir():
            covered |= set(dep.rglob("*.py"))
    files = reached(ROOT / "stages" / f"{name}.py") | {ROOT / "stages" / "__init__.py"}
    missing = files - covered
    assert not missing, f"{name} imports what dvc.yaml does not list: {sorted(map(str, missing))}"
    rooms_reached = {file.parent for file in files} | files
    code = [dep for dep in deps if dep.is_relative_to(ROOT / "src") or dep.is_relative_to(ROOT / "stages")]
    unused = [dep for dep in code if dep not in rooms_reached]
    assert not unused, f"{name} depends on code that it does not import: {unused}"


@pytest.mark.parametrize("name", sorted(pipeline()))
def test_params_are_the_sections_that_the_stage_reads(name: str) -> None:
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    read = {
        node.args[1].value for node in calls if node.func.attr == "section" and isinstance(node.args[1], ast.Constant)
    }
    for node in ast.walk(tree):  # sections that are shown as they stand
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "SHOWN":
            read |= set(ast.literal_eval(node.value))
    assert read == set(pipeline()[name].get("params", []))


def test_the_grid_is_tracked_by_no_matrix_stage() -> None:
    for name, stage in pipeline().items():
        if "matrix" in stage:
            assert "sweep" not in stage["params"], f"{name}: adding an epsilon would rerun every network"


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_thin(name: str) -> None:
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 45, f"{name}.{node.name} has {node.end_lineno - node.lineno} lines"


def test_files_and_functions_are_small() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                start = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.lineno
                assert node.end_lineno - start < 40, f"{path.name}: {node.name}"


def test_importing_prints_nothing_and_touches_no_file(tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
    ]
    done = subprocess.run(
        [sys.executable, "-B", "-c", "import " + ", ".join(modules)],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT / "src"),
            "PATH": "",
            "HOME": str(tmp_path / "home"),
            "MPLCONFIGDIR": str(tmp_path.parent),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert [p for p in tmp_path.iterdir() if p.name != "home"] == []


def test_the_library_imports_without_dvc_and_mlflow(tmp_path: Path) -> None:
    rooms = ", ".join(f"epsilens.{name}" for name in ROOMS if name != "tracking")
    block = "import sys; sys.modules['dvc'] = sys.modules['mlflow'] = None; "
    subprocess.run([sys.executable, "-B", "-c", block + "import " + rooms], cwd=tmp_path, check=True,
                   env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""}, capture_output=True)  # fmt: skip
