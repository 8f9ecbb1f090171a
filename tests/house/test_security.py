"""What must not be in the code: ruff's S rules (pyproject.toml) find the usual, here is what they let pass."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = [path for folder in ("src", "stages", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
}


def name(node: ast.expr) -> str:
    return ast.unparse(node)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_executes_what_it_reads(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called, options = name(node.func), {word.arg: word.value for word in node.keywords}
            assert called not in FORBIDDEN, f"{path.name}:{node.lineno}: {called}"
            assert "shell" not in options, f"{path.name}:{node.lineno}: a shell"
            if called == "yaml.load":  # with a loader that is a SafeLoader with less
                assert [name(given) for given in node.args[1:]] == ["_Loader"], f"{path.name}:{node.lineno}: yaml.load"
            if called == "torch.load":
                assert name(options.get("weights_only", node)) == "True", f"{path.name}:{node.lineno}: torch.load"
            if called.endswith("Environment"):
                assert "autoescape" in options, f"{path.name}:{node.lineno}: a template that does not escape"


def test_servers_listen_on_this_machine_only() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    servers = [line for line in text.splitlines() if "mlflow server" in line]
    assert servers
    assert all("--host 127.0.0.1" in line for line in servers)


def test_commands_of_the_pipeline_hold_nothing_but_numbers_of_the_grid() -> None:
    """DVC runs them in a shell; `sweep` holds numbers, and nothing else of params.yaml reaches them."""
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.strip().startswith("cmd:")]
    used = {part.partition("}")[0] for line in commands for part in line.replace(r"\${", "").split("${")[1:]}
    assert used == {"item.epsilon", "item.seed"}
