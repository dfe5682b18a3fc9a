"""The rooms of the library: imports run downward only, and light jobs start light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tessera.artifacts.fork_server import LANGUAGE_SCRIPTS, TORCH_SCRIPTS

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "src/tessera"

# Room -> rooms that it may use. What is not named here is not allowed.
BASE = {"settings", "artifacts"}
DOORS: dict[str, set[str]] = {
    "settings": {"artifacts"},
    "plan": BASE | {"data"},
    "watch": BASE | {"data", "plan"},
    "artifacts": set(),
    "data": BASE,
    "objectives": BASE,
    "evaluation": BASE | {"data"},
    "training": BASE | {"data", "objectives", "evaluation"},
    "language": BASE | {"data", "objectives", "training"},
    "content": BASE | {"data", "objectives", "training", "language"},
    "embedding": BASE | {"data", "objectives", "evaluation", "training", "language", "content"},
    "quantization": BASE | {"data", "objectives", "evaluation", "training"},
    "recommenders": BASE | {"data", "objectives", "evaluation", "training", "language"},
    "ctr": BASE | {"data", "objectives", "evaluation", "training", "content"},
    "reporting": BASE | {"data", "evaluation"},
    "serving": BASE | {"data", "evaluation", "embedding", "recommenders", "training"},
}
LIGHT_SCRIPTS = [
    "ingest.py", "generate.py", "prepare.py", "table.py", "diagnose.py", "atlas.py", "tables.py", "report.py",
]  # fmt: skip
MODULES = sorted(LIBRARY.glob("*/**/*.py"))
# Names that would fit anything: a name says what it holds (metrics, rows, positions, message, ...).
EMPTY_WORDS = {"found", "told", "places"}
NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports, at its top or inside a function."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "tessera" and len(part) > 1 and (LIBRARY / part[1]).is_dir()}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_imports_run_downward(path: Path) -> None:
    room = path.relative_to(LIBRARY).parts[0]
    assert room in DOORS, f"a new room {room!r}: say in DOORS what it may use"
    assert imported_rooms(path) <= DOORS[room] | {room}


def test_the_page_tells_the_same_directions() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", re.sub(r" \([^()]*\)", "", page), re.MULTILINE)
    said = {room: set() if doors == "nothing" else set(doors.split(", ")) for room, doors in rows if room in DOORS}
    assert said == DOORS


def test_the_library_knows_nothing_of_snakemake() -> None:
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "snakemake" for name in names), path


def test_no_pickle_and_no_remote_code() -> None:
    for path in [*LIBRARY.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.load", "allow_pickle=True"):
            assert word not in text, f"{path}: {word}"
        assert not re.search(r"trust_remote_code\W+True", text), path


def bound_names(tree: ast.AST) -> set[str]:
    """Every name that a module binds: variables, parameters, fields, attributes, functions, classes and imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, NAMED):
            names.add(node.name or "")
        elif isinstance(node, ast.MatchMapping):
            names.add(node.rest or "")
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names


def test_names_say_what_they_hold() -> None:
    paths = [*LIBRARY.rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "tools").glob("*.py")]
    for path in paths:
        empty = bound_names(ast.parse(path.read_text(encoding="utf-8"))) & EMPTY_WORDS
        assert not empty, f"{path}: {sorted(empty)} say nothing of what they hold"
    script = (LIBRARY / "reporting/page.js").read_text(encoding="utf-8")
    assert not re.search(rf"\b(const|let|function)\W+({'|'.join(EMPTY_WORDS)})\b", script)


@pytest.mark.parametrize(
    "code",
    [
        "found = 1", "a, (told, *b) = c", "found: int", "def f(places): ...", "lambda told: 0", "def told(): ...",
        "class places: ...", "[0 for found in a]", "if told := a: ...", "from a import b as told",
        "from a import places", "import places.b", "self.told = 1", "with a as found: ...",
        "match a:\n    case [found]: ...", "match a:\n    case {**told}: ...", "match a:\n    case [*places]: ...",
        "try: ...\nexcept ValueError as found: ...",
    ],
)  # fmt: skip
def test_every_way_to_bind_a_name_is_seen(code: str) -> None:
    assert len(bound_names(ast.parse(code)) & EMPTY_WORDS) == 1


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def script_imports(name: str) -> str:
    """The import statements of a script, those inside its `with` block included."""
    tree = ast.parse((ROOT / "scripts" / name).read_text(encoding="utf-8"))
    return "\n".join(ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))


@pytest.mark.parametrize("script", LIGHT_SCRIPTS)
def test_stages_without_a_model_do_not_load_torch(script: str) -> None:
    assert "torch" not in modules_after(script_imports(script))


# Libraries that take a while to import -> stages that use them every time.
HEAVY: dict[str, set[str]] = {
    "sklearn": set(),  # imported where a probe or a calibration is fitted
    "networkx": {"report.py"},
    "pandas": set(),
    "faiss": {"export.py"},
}


def test_stages_load_no_library_that_they_may_not_need() -> None:
    scripts = {path.name for path in (ROOT / "scripts").glob("*.py")}
    users = set().union(*HEAVY.values())
    assert users <= scripts
    # all at once: a start with torch takes seconds
    together = "\n".join(map(script_imports, sorted(scripts - users)))
    assert not modules_after(together) & HEAVY.keys()
    for script in users:
        assert not modules_after(script_imports(script)) & {name for name in HEAVY if script not in HEAVY[name]}


def test_reading_the_workflow_loads_no_engine() -> None:
    statement = "import tessera.plan.jobs, tessera.plan.picture, tessera.plan.first_lines, tessera.artifacts.code, "
    statement += "tessera.watch.line, tessera.watch.closing, tessera.watch.costs"
    assert not modules_after(statement) & {"torch", "polars", "pyarrow", "numpy", *HEAVY}


def start_seconds(statements: str) -> float:
    """CPU seconds of a Python that runs these statements."""
    code = f"{statements}\nimport time\nprint(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout)


def test_scripts_that_are_forked() -> None:
    scripts = {path.name for path in (ROOT / "scripts").glob("*.py")}
    assert scripts >= TORCH_SCRIPTS | LANGUAGE_SCRIPTS
    assert not TORCH_SCRIPTS & LANGUAGE_SCRIPTS
    assert not (TORCH_SCRIPTS | LANGUAGE_SCRIPTS) & set(LIGHT_SCRIPTS)


@pytest.mark.parametrize("script", LIGHT_SCRIPTS)
def test_start_up_is_short(script: str) -> None:
    # beside what every stage reads tables with, taken at the same moment: how fast the machine is and who else uses it
    # do not count. Of three tries the best: a stage takes three times as long at most, torch alone more than four times
    ratios = []
    for _ in range(3):
        reference = start_seconds("import numpy, polars, pyarrow")
        ratios.append(start_seconds(script_imports(script)) / reference)
        if ratios[-1] < 4:
            return
    raise AssertionError(f"{script}: a start takes {min(ratios):.1f} times the seconds of numpy, polars and pyarrow")


def test_no_pattern_has_a_possessive_group() -> None:
    """Python before 3.11.5 loses its place in one (`(?:a|b)*+`); a possessive set (`[^>]*+`) is right everywhere."""
    for path in LIBRARY.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not re.search(r"\)(?:[?*+]|\{+\d*,?\d*\}+)\+", line), f"{path}:{number}: {line.strip()}"
