"""What the page on semantic IDs shows is true of the code."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import yaml

from tessera.plan.graph import Plan
from tessera.quantization.conflicts import EPSILON, ITERATIONS, ROUNDS
from tessera.settings.config import load
from tessera.settings.kinds import tags

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "semantic-ids.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_config_is_valid() -> None:
    (shown,) = blocks("yaml")
    assert {run.system for run in Plan(load(yaml.safe_load(shown))).runs} == {"tiger", "codes_in"}


def test_what_the_python_code_imports_is_there() -> None:
    (code,) = blocks("python")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert all(hasattr(import_module(str(node.module)), alias.name) for alias in node.names)


def test_every_quantiser_and_constant_is_told() -> None:
    for name in tags("quantizers"):
        assert f"| `{name}` |" in PAGE
    assert f"ε {EPSILON}" in PAGE
    assert f"{ITERATIONS} iterations" in PAGE
    assert f"at most {ROUNDS} rounds" in PAGE
