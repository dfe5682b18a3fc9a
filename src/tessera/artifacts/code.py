"""Fingerprints of code: which library modules a stage imports, and what they say.

Snakemake re-runs a stage when its script changes, not when a module that the script imports does. So every rule
carries a hash of the script's import closure inside Tessera. The hash is taken over the syntax tree without
docstrings: a comment, a docstring or a reformatting re-runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tessera.artifacts.files import file_digest, identity
from tessera.artifacts.parses import Parse, Parses

SOURCE = Path(__file__).resolve().parents[2]

# Left out of every hash: the version number alone changes no result.
_LEFT_OUT = {"tessera.__version__"}


@cache
def _module_file(name: str, roots: tuple[Path, ...]) -> Path | None:
    for root in roots:
        if root == SOURCE and name.partition(".")[0] != "tessera":
            continue  # an installed library lies among all the others
        base = root.joinpath(*name.split("."))
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _roots(path: Path) -> tuple[Path, ...]:
    """Where the imports of a file are looked for: in the library, and, of a file outside of it, beside its own too."""
    return (SOURCE,) if path.is_relative_to(SOURCE) else (SOURCE, Path.cwd())


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # also the bare strings under settings fields, which document them
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _for_types_alone(node: ast.AST) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that are there for type checkers alone."""
    waiting = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if not _for_types_alone(node):
                yield node
                if not isinstance(node, ast.expr):  # no expression holds a statement
                    waiting.append(node)


def _package(path: Path, level: int) -> str:
    """The package that a relative import of a file starts from, as seen from its root."""
    root = next(root for root in _roots(path) if path.is_relative_to(root))
    parts = path.relative_to(root).parent.parts
    return ".".join(parts[: len(parts) - level + 1])


_kept: Parses | None = None


def keep_parses(path: Path) -> None:
    """From now on parses are looked for in a file, and kept there for later runs in this folder."""
    global _kept
    # what syntax means depends on how it is read, on Python, and on where imports are looked for
    version = json.dumps(
        [hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), sys.version, str(SOURCE), str(Path.cwd())]
    )
    _kept = Parses(path, version)


@cache
def _parse(path: Path) -> Parse:
    """Hash of a file's meaning, and the modules that it imports (at the top or inside a function)."""
    data = path.read_bytes()
    parse = _kept.get(path, data) if _kept else None
    if parse is None:
        parse = _read_syntax(path, data)
        if _kept:
            _kept.add(path, data, parse)
    return parse


def _read_syntax(path: Path, data: bytes) -> Parse:
    tree = ast.parse(data)
    imported: list[str] = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [_package(path, node.level) if node.level else "", node.module]))
            imported.append(module)
            imported += [f"{module}.{alias.name}" for alias in node.names]
    digest = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()
    return digest, tuple(sorted({name for name in imported if name != "tessera"} - _LEFT_OUT))


def code_modules(script: str | Path, plugins: Iterable[str] = ()) -> list[Path]:
    """The script and every module that it reaches, plus `plugins` (modules loaded by name) and theirs.

    Modules are Tessera's and, of plugins that lie in the working directory, those beside them.

    Raises:
        ValueError: a plugin is in neither place.
    """
    waiting = [Path(script).resolve()]
    for name in plugins:
        path = _module_file(name, (SOURCE, Path.cwd()))
        if path is None:
            raise ValueError(f"no module {name!r} under {SOURCE} or {Path.cwd()}")
        waiting.append(path)
    stage = waiting[0]  # it imports the library alone, wherever it is run
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        roots = (SOURCE,) if path == stage else _roots(path)
        for name in _parse(path)[1]:
            file = _module_file(name, roots)
            if file is not None:
                waiting.append(file)
    return sorted(seen)


def _place(path: Path) -> str:
    """Where a file stands in the library; a script goes by its name, wherever the workflow lies."""
    return path.relative_to(SOURCE).as_posix() if path.is_relative_to(SOURCE) else path.name


@cache
def templates_fingerprint(folder: str = "tessera/reporting") -> str:
    """Hash of the names and the bytes of what a folder of the library holds for pages besides code, 16 hex digits."""
    paths = sorted(path for path in (SOURCE / folder).iterdir() if path.suffix in (".html", ".css", ".js"))
    return identity(*(f"{path.name}: {file_digest(path)}" for path in paths))[:16]


@cache
def code_fingerprint(script: str, plugins: tuple[str, ...] = ()) -> str:
    """Hash of everything that `code_modules` finds, 16 hex digits."""
    digest = hashlib.sha256()
    for path in code_modules(script, plugins):
        digest.update(_place(path).encode() + _parse(path)[0].encode())
    return digest.hexdigest()[:16]
