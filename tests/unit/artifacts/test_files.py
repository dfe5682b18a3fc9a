"""A reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tessera.artifacts.files import atomic, file_digest, half_written, read_json, write_json, write_text


def test_replaces_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_while_tensors_are_written_leaves_nothing_that_is_not_known(tmp_path: Path) -> None:
    """The library that writes them makes a file of its own beside the one that it is given."""
    code = (
        "import sys, torch\nfrom tessera.artifacts.models import write_tensors\n"
        "big = {'x': torch.zeros(40_000_000)}\nprint('writing', flush=True)\n"
        "while True:\n    write_tensors(sys.argv[1], big)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "w.safetensors")], stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        one.stdout.readline()
        end = time.monotonic() + 60
        while not (half := [p for p in tmp_path.iterdir() if p.stat().st_size and p.name != "w.safetensors"]):
            assert time.monotonic() < end
        one.kill()
    assert half
    assert {path.name for path in tmp_path.iterdir()} - {"w.safetensors"} == {p.name for p in half_written(tmp_path)}


def test_kill_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    code = (
        "import sys, time\nfrom tessera.artifacts.files import atomic\n"
        "with atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('{\"half')\n    print('writing', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert read_json(path) == {"old": 1}


def test_readers_never_see_half(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, ["x"] * 20_000)
    code = (
        "import sys\nfrom tessera.artifacts.files import write_json\n"
        "while True:\n    for letter in 'xy':\n        write_json(sys.argv[1], [letter] * 20_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as process:
        end = time.monotonic() + 1.0
        seen = set()
        while time.monotonic() < end:
            values = read_json(path)
            assert len(values) == 20_000
            seen.update(values)
        process.kill()
    assert seen <= {"x", "y"}


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_json_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"ndcg": float("nan")})
    assert not list(tmp_path.iterdir())


def test_json_is_the_same_for_the_same_value(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    write_json(tmp_path / "b.json", {"a": "ü", "b": 1})
    assert file_digest(tmp_path / "a.json") == file_digest(tmp_path / "b.json")
    assert "ü" in (tmp_path / "a.json").read_text(encoding="utf-8")
