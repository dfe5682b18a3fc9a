"""A kind stands alone: adding one, or changing one, makes no other result stale, and no other file speaks of it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stages import Stage, stages

from tessera.settings.kinds import FAMILIES, Kind, settings_class, tags

ROOT = Path(__file__).resolve().parents[3]
LIBRARY = ROOT / "src/tessera"


def own_modules(kind: type[Kind]) -> list[str]:
    """Every module of a kind: where its settings stand, its code, and its code as published."""
    code = (place.partition(":")[0] for place in (kind.IMPLEMENTATION, kind.PUBLISHED))
    return list(dict.fromkeys([kind.__module__, *filter(None, code)]))


KINDS = {(family, tag): own_modules(settings_class(family, tag)) for family in FAMILIES for tag in tags(family)}

# Modules of kinds that a stage may reach without having such a kind, and why.
REACHED = {
    "tessera.settings.items.ids": "what a system's items are where it names none",
    "tessera.recommenders.item_encoders.ids": "PAD's towers read IDs, and a table behind an adapter",
    "tessera.settings.items.table": "the same",
    "tessera.recommenders.item_encoders.table": "the same",
    "tessera.settings.systems.backbone": "a distilled system is one under a backbone, and a teacher beside it",
    "tessera.recommenders.systems.backbone": "the same",
    "tessera.settings.losses.cross_entropy": "what a run's loss is where it names none",
    "tessera.settings.sources.bazaar": "the demo world: a built model learns its shapes, and its truth judges",
    "tessera.data.bazaar.generate": "the same",
    "tessera.settings.sources.columns": "logs of any form are read as columns",
    "tessera.data.sources.columns": "the same",
    "tessera.settings.recipes.lrcl": "what crrl goes on from",
    "tessera.embedding.lrcl": "the same",
    "tessera.settings.recipes.text": "how recipes pool the states of a text",
    "tessera.embedding.text": "the same",
}


@pytest.fixture(scope="module")
def found() -> list[Stage]:
    return list(stages(ROOT))


def test_a_stage_reaches_its_own_kinds_alone(found: list[Stage]) -> None:
    of_kinds = {module for modules in KINDS.values() for module in modules}
    files = {LIBRARY.parent.joinpath(*module.split(".")).with_suffix(".py"): module for module in of_kinds}
    odd: dict[str, set[str]] = {}
    for stage in found:
        for file in stage.modules & files.keys():
            if files[file] not in stage.kinds:
                odd.setdefault(files[file], set()).add(stage.name)
    unexpected = {module: sorted(names)[:3] for module, names in odd.items() if module not in REACHED}
    assert unexpected == {}


# ---------------------------------------------------------------- files added, files changed

NEW = {
    "backbones": ("kind: str", "max_length: int = 20"),
    "items": ("kind: str", ""),
    "losses": ("kind: str", ""),
    "systems": ("recommender: str", ""),
    "recipes": ("recipe: str", ""),
    "quantizers": ("quantizer: str", ""),
    "clicks": ("model: str", ""),
    "sources": ("source: str", ""),
}


def add_kinds(source: Path) -> None:
    """A settings file and a code file in every family's folder."""
    for family, (tag, more) in NEW.items():
        place = FAMILIES[family]
        folder = source.joinpath(*place.settings.split("."))
        lines = [
            f"from {place.settings}.base import {place.base}", f"class Added({place.base}):",
            f'    IMPLEMENTATION = "tessera.added.{family}:Added"', f"    {tag} = 'added'", f"    {more or 'pass'}",
        ]  # fmt: skip
        (folder / "added.py").write_text("\n".join(lines) + "\n")
        code = source / "tessera/added" / f"{family}.py"
        code.parent.mkdir(exist_ok=True)
        code.write_text("class Added:\n    pass\n")


def edit(file: str, old: str, new: str) -> Callable[[Path], None]:
    """An edit of one file of the library."""

    def change(source: Path) -> None:
        path = source / "tessera" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for part in ("src", "scripts", "config"):  # with what is compiled, which an edit makes out of date
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.egg-info"))
    return tmp_path


def fingerprints(root: Path) -> dict[str, str]:
    """Those of a copy of the repository, by its own library."""
    command = [sys.executable, str(Path(__file__).with_name("stages.py")), str(root)]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add_kinds, ()),
        (edit("settings/backbones/gru4rec.py", "hidden_dim: Width = 128", "hidden_dim: Width = 96"), ("gru4rec",)),
        (edit("settings/quantizers/base.py", "something twice", "one twice"), ("quantize.py", "health.py")),
        (edit("settings/quantizers/pq.py", "iterations: int = Field(50", "iterations: int = Field(60"), ()),
        (edit("settings/clicks/sdim.py", "class ", "class Renamed"), ()),
        (edit("recommenders/systems/tiger.py", "choose a quantizer", "choose another quantizer"), ("tiger",)),
        (edit("settings/problems.py", "unknown name", "no such name"), ()),
        (edit("embedding/crrl_published.py", "1e-6", "1e-5"), ()),
        (edit("embedding/lrcl.py", "- 1", "- 2"), (" lrcl", " reaemb")),
    ],
    ids=["a kind of every family", "a default", "a message of a family", "a default of another", "a name", "a message",
         "a message of all", "a published habit that nobody has", "a recipe, and what goes on from it"],
)  # fmt: skip
def test_an_edit_of_files_leaves_other_stages_alone(
    copy: Path, change: Callable[[Path], None], expected: tuple[str, ...], found: list[Stage]
) -> None:
    before = {stage.name: stage.fingerprint for stage in found}
    change(copy / "src")
    after = fingerprints(copy)
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert all(any(part in name for part in expected) for name in changed), sorted(changed)
    assert bool(changed) == bool(expected)


# ---------------------------------------------------------------- the tag-grep

ORDINARY = {"attributes", "backbone", "collaborative", "columns", "given", "hidden", "ids", "image", "latent",
            "pairs", "semantic_ids", "sequences", "table", "text", "vectors"}  # fmt: skip
"""Tags that are words of another meaning too: of these only comparisons with the key of a family count."""
ALLOWED = {
    ("settings/clicks/mirrn.py", "filter"): "its own key of that name",
    ("settings/config.py", "popular"): "built in",
    ("settings/config.py", "item_knn"): "built in",
    ("settings/config.py", "markov"): "built in",
    ("settings/config.py", "sasrec"): "what an experiment runs under where it names nothing",
    ("settings/references.py", "sasrec"): "what a referred run is trained under where nothing is named",
    ("settings/systems/pad.py", "bce"): "the loss of its preset",
    ("settings/systems/eimf.py", "interests"): "its own key of that name",
    ("settings/systems/tpad.py", "distilled"): "a form of its features",
    ("recommenders/systems/tpad.py", "distilled"): "the same",
    ("settings/items/base.py", "semantic_ids"): "short forms of items",
    ("settings/items/base.py", "table"): "short forms of items",
    ("embedding/interest_writers.py", "interests"): "a key of what a language model answers",
    ("artifacts/tables.py", "popular"): "a column: popular items stand in for a user without a history",
    ("serving/everyone.py", "popular"): "the same column",
    ("settings/language.py", "bazaar"): "a built model learns the shapes of the demo world",
}
KEYS = {family.key for family in FAMILIES.values()}


def literals(tree: ast.AST) -> Iterator[str]:
    """String literals that may be tags: distinctive ones anywhere, ordinary words where a kind's key is compared."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in ORDINARY:
            yield node.value
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(_names_a_key(side) for side in sides):
                yield from (part.value for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant))


def _names_a_key(node: ast.AST) -> bool:
    """`x.recipe`, `x["recipe"]` or `x.get("recipe")`."""
    if isinstance(node, ast.Attribute):
        return node.attr in KEYS - {"kind", "model", "source"}
    inner = node.args if isinstance(node, ast.Call) else [node.slice] if isinstance(node, ast.Subscript) else []
    return any(isinstance(part, ast.Constant) and part.value in KEYS for part in inner)


def own_files() -> dict[str, set[Path]]:
    """tag -> the files that may speak of it."""
    found: dict[str, set[Path]] = {}
    for (family, tag), modules in KINDS.items():
        files = {LIBRARY.parent.joinpath(*module.split(".")).with_suffix(".py") for module in modules}
        files.add(LIBRARY.parent.joinpath(*FAMILIES[family].settings.split("."), f"{tag}.py"))
        found.setdefault(tag, set()).update(files)
    return found


def test_a_tag_stands_in_its_own_files_alone() -> None:
    own = own_files()
    odd = set()
    for path in [*LIBRARY.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for word in literals(ast.parse(path.read_text(encoding="utf-8"))):
            place = path.relative_to(LIBRARY).as_posix() if path.is_relative_to(LIBRARY) else path.name
            if word in own and path not in own[word] and (place, word) not in ALLOWED:
                odd.add((place, word))
    assert odd == set()


def test_rules_name_no_tag() -> None:
    own = own_files().keys() - ORDINARY
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for word in own:
            assert f'"{word}"' not in path.read_text(), f"{path.name}: {word}"


# ---------------------------------------------------------------- one place each


def test_one_place_imports_by_name() -> None:
    places = [*LIBRARY.rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "workflow").rglob("*.smk")]
    found = {path.relative_to(ROOT).as_posix() for path in places if "import_module" in path.read_text()}
    # what a fork server imports is installed and none of this library
    assert found == {"src/tessera/settings/kinds.py", "src/tessera/artifacts/fork_server.py"}


def test_the_common_rules_file_stays_short() -> None:
    assert len((ROOT / "workflow/rules/common.smk").read_text().splitlines()) < 200


# Outside of settings/ and of a kind's own files: (file, settings class) pairs that are still told apart by type.
BY_TYPE = {
    ("ctr/samples.py", "ImpressionSamples"), ("ctr/samples.py", "PositiveSamples"), ("ctr/samples.py", "RatingSamples"),
    ("data/prepare.py", "GivenSplit"), ("data/prepare.py", "GlobalTemporal"),
    ("data/prepare.py", "NoSplit"), ("data/prepare.py", "SessionSplit"), ("data/sessions.py", "SessionsByGap"),
    ("evaluation/judge.py", "FullRanking"), ("evaluation/judge.py", "SampledRanking"),
    ("evaluation/shift.py", "PopularityShift"),
    ("language/models.py", "BuiltModel"), ("language/models.py", "FolderModel"), ("language/models.py", "PackageModel"),
    ("plan/graph.py", "BuiltModel"), ("plan/graph.py", "Kind"), ("plan/graph.py", "PresetSettings"),
    ("plan/graph.py", "ReadRun"), ("plan/graph.py", "TrainedSystem"), ("plan/graph.py", "UnderBackbones"),
    ("plan/first_lines.py", "CandidatesFile"), ("plan/first_lines.py", "FileSource"),
    ("plan/first_lines.py", "GivenSystem"), ("plan/jobs.py", "FolderModel"), ("plan/required.py", "CandidatesFile"),
    ("plan/required.py", "FileSource"), ("plan/required.py", "FolderModel"), ("plan/required.py", "LoopSettings"),
    ("plan/required.py", "PackageModel"), ("plan/warm_start.py", "Kind"), ("plan/warm_start.py", "Settings"),
    ("quantization/quantize.py", "CodeSettings"),
    ("serving/folder.py", "BuiltModel"), ("serving/folder.py", "FolderModel"), ("serving/new_items.py", "BuiltModel"),
    ("serving/new_items.py", "Finish"), ("serving/new_items.py", "ByModel"),
    ("watch/costs.py", "Steps"), ("watch/costs.py", "Training"),
}  # fmt: skip


def test_settings_are_told_apart_by_type_in_few_places() -> None:
    own = {file for files in own_files().values() for file in files}
    found = set()
    for path in LIBRARY.rglob("*.py"):
        if path in own or path.is_relative_to(LIBRARY / "settings"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        settings = [node for node in imports if (node.module or "").startswith("tessera.settings")]
        imported = {alias.asname or alias.name for node in settings for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                names = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                found |= {(path.relative_to(LIBRARY).as_posix(), name) for name in names & imported}
    assert found == BY_TYPE
