"""Code hashes change with meaning, and only with the meaning of what a stage imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tessera.artifacts import code, parses


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small library: script -> tessera.a -> tessera.b; tessera.c stands alone."""
    root = tmp_path / "src"
    (root / "tessera").mkdir(parents=True)
    for name, text in {
        "tessera/__init__.py": "",
        "tessera/a.py": "from tessera.b import two\n\ndef one():\n    return two() - 1\n",
        "tessera/b.py": 'LIMIT = 5\n"""Doc of a field."""\n\ndef two():\n    """Doc."""\n    return 2\n',
        "tessera/c.py": "def three():\n    return 3\n",
    }.items():
        (root / name).write_text(text)
    (tmp_path / "stage.py").write_text("def late():\n    from tessera import a\n    return a.one()\n")
    monkeypatch.setattr(code, "SOURCE", root)
    return tmp_path


def fingerprint(library: Path, *plugins: str) -> str:
    code._parse.cache_clear()
    code.code_fingerprint.cache_clear()
    return code.code_fingerprint(str(library / "stage.py"), plugins)


def edit(library: Path, name: str, old: str, new: str) -> None:
    path = library / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_closure_follows_imports_inside_functions(library: Path) -> None:
    names = [path.name for path in code.code_modules(library / "stage.py")]
    assert names == ["a.py", "b.py", "stage.py"]


def test_other_installed_packages_are_none_of_it(library: Path) -> None:
    """Where the library lies among all that is installed."""
    edit(library, "src/tessera/b.py", "LIMIT = 5", "import numpy\nLIMIT = 5")
    before = fingerprint(library)
    (library / "src/numpy").mkdir()
    (library / "src/numpy/__init__.py").write_text("import tessera.c\n")
    code._module_file.cache_clear()
    assert fingerprint(library) == before
    assert len(code.code_modules(library / "stage.py")) == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [('"""Doc."""', '"""Another doc."""'), ("return 2", "return 2  # why"), ("LIMIT = 5", "LIMIT   =  5"),
     ('"""Doc of a field."""', '"""Other."""')],
)  # fmt: skip
def test_cosmetic_edits_change_nothing(library: Path, old: str, new: str) -> None:
    before = fingerprint(library)
    edit(library, "src/tessera/b.py", old, new)
    assert fingerprint(library) == before


def test_real_edits_change_the_hash(library: Path) -> None:
    before = fingerprint(library)
    edit(library, "src/tessera/b.py", "return 2", "return 3")
    assert fingerprint(library) != before


def test_what_is_not_imported_does_not_count(library: Path) -> None:
    before = fingerprint(library)
    edit(library, "src/tessera/c.py", "return 3", "return 4")
    assert fingerprint(library) == before


def test_plugins_count(library: Path) -> None:
    before = fingerprint(library, "tessera.c")
    assert before != fingerprint(library)
    edit(library, "src/tessera/c.py", "return 3", "return 4")
    assert fingerprint(library, "tessera.c") != before


def test_an_unknown_plugin_is_named(library: Path) -> None:
    with pytest.raises(ValueError, match=r"no module 'tessera\.d'"):
        fingerprint(library, "tessera.d")


# ---------------------------------------------------------------- parses that are kept between runs


@pytest.fixture
def kept(library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where parses of the small library are kept; `run` fills it."""
    monkeypatch.setattr(code, "_kept", None)
    monkeypatch.setattr(parses.atexit, "register", lambda function: None)
    return library / "kept" / "parses.json"


def run(library: Path, kept: Path, *plugins: str) -> tuple[str, list[str]]:
    """The fingerprint as a new process finds it, and the names of files whose syntax it reads."""
    read: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        real = code._read_syntax
        patched.setattr(code, "_read_syntax", lambda path, data: read.append(path.name) or real(path, data))
        code.keep_parses(kept)
        digest = fingerprint(library, *plugins)
        assert code._kept is not None
        if code._kept.changed:
            code._kept.write()
    return digest, sorted(read)


def test_kept_parses_give_the_same_fingerprint_and_are_not_read_again(library: Path, kept: Path) -> None:
    alone = fingerprint(library)
    assert run(library, kept) == (alone, ["a.py", "b.py", "stage.py"])
    assert run(library, kept) == (alone, [])


def test_an_edit_of_the_same_size_and_time_is_read(library: Path, kept: Path) -> None:
    before, _ = run(library, kept)
    path = library / "src/tessera/b.py"
    times = path.stat()
    edit(library, "src/tessera/b.py", "return 2", "return 3")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after, read = run(library, kept)
    assert after != before
    assert read == ["b.py"]
    code._kept = None
    assert fingerprint(library) == after


def test_an_import_that_was_added_is_followed(library: Path, kept: Path) -> None:
    run(library, kept)
    edit(library, "src/tessera/b.py", "LIMIT", "from . import c\nLIMIT")
    after, read = run(library, kept)
    assert read == ["b.py", "c.py"]
    code._kept = None
    assert fingerprint(library) == after


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: '{"version": 1}',
        lambda text: text.replace('"version": "', '"version": "of another '),
        lambda text: text.replace('"tessera.b"', "7"),
        lambda text: re.sub(r'"files": \{.*\}\}', '"files": {"a": 3}}', text),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_or_foreign_file_is_done_without(library: Path, kept: Path, damage: Callable[[str], str]) -> None:
    alone, _ = run(library, kept)
    text = damage(kept.read_text())
    assert text != kept.read_text()
    kept.write_text(text)
    assert run(library, kept) == (alone, ["a.py", "b.py", "stage.py"])
    assert run(library, kept) == (alone, [])


def test_another_way_of_reading_syntax_forgets_all(library: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = run(library, kept)
    monkeypatch.setattr(sys, "version", "another Python")
    assert run(library, kept) == (alone, ["a.py", "b.py", "stage.py"])


def test_what_cannot_be_written_is_done_without(library: Path, kept: Path) -> None:
    kept.parent.write_text("no folder")
    alone = fingerprint(library)
    assert run(library, kept)[0] == alone
    assert run(library, kept)[0] == alone


def test_files_that_are_gone_are_forgotten(library: Path, kept: Path) -> None:
    run(library, kept, "tessera.c")
    (library / "src/tessera/c.py").unlink()
    edit(library, "src/tessera/b.py", "return 2", "return 3")
    run(library, kept)
    assert sorted(Path(path).name for path in json.loads(kept.read_text())["files"]) == ["a.py", "b.py", "stage.py"]


def test_processes_write_at_once(library: Path, kept: Path) -> None:
    alone, _ = run(library, kept)
    program = (
        "import sys; from pathlib import Path; from tessera.artifacts.parses import Parses\n"
        "for n in range(40):\n"
        "    mine = Parses(Path(sys.argv[1]), sys.argv[2])\n"
        "    assert mine.entries, 'half a file was read'\n"
        "    mine.add(Path(sys.argv[1]), b'%d' % n, ('x', ())); mine.write()\n"
    )
    assert code._kept is not None
    command = [sys.executable, "-c", program, str(kept), code._kept.version]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert run(library, kept) == (alone, [])
    assert [path.name for path in kept.parent.iterdir()] == ["parses.json"]
