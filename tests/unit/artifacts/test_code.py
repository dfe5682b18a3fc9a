"""Code hashes change with meaning, and only with the meaning of what a stage imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera.artifacts import code


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
