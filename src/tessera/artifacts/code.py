"""Fingerprints of code: which library modules a stage imports, and what they say.

Snakemake re-runs a stage when its script changes, not when a module that the script imports does. So every rule
carries a hash of the script's import closure inside Tessera. The hash is taken over the syntax tree without
docstrings: a comment, a docstring or a reformatting re-runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]

# Left out of every hash. These three gather all sections, so an edit to the report's settings would retrain everything;
# what they do to a stage is in the resolved settings that the rule carries beside the hash, and modules import the
# section that they read directly. The version number alone changes no result.
_LEFT_OUT = {"tessera.settings.config", "tessera.settings.systems", "tessera.settings.tables", "tessera.__version__"}


def _module_file(name: str) -> Path | None:
    base = SOURCE.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # also the bare strings under settings fields, which document them
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


@cache
def _parse(path: Path) -> tuple[str, tuple[str, ...]]:
    """Hash of a file's meaning, and the Tessera modules that it imports (at the top or inside a function)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imported.append(node.module)
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
    digest = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()
    return digest, tuple(sorted({name for name in imported if name.startswith("tessera.") and name not in _LEFT_OUT}))


def code_modules(script: str | Path, plugins: Iterable[str] = ()) -> list[Path]:
    """The script and every Tessera module that it reaches, plus `plugins` (modules loaded by name) and theirs."""
    waiting = [Path(script).resolve()]
    for name in plugins:
        path = _module_file(name)
        if path is None:
            raise ValueError(f"no module {name!r} under {SOURCE}")
        waiting.append(path)
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _parse(path)[1]:
            found = _module_file(name)
            if found is not None:
                waiting.append(found)
    return sorted(seen)


def _place(path: Path) -> str:
    """Where a file stands in the library; a script goes by its name, wherever the workflow lies."""
    return path.relative_to(SOURCE).as_posix() if path.is_relative_to(SOURCE) else path.name


@cache
def code_fingerprint(script: str, plugins: tuple[str, ...] = ()) -> str:
    """Hash of everything that `code_modules` finds, 16 hex digits."""
    digest = hashlib.sha256()
    for path in code_modules(script, plugins):
        digest.update(_place(path).encode() + _parse(path)[0].encode())
    return digest.hexdigest()[:16]
