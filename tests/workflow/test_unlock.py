"""What `./run` does before Snakemake starts: locks and leftovers of killed runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_project import ROOT

from tessera.artifacts.files import atomic, half_written

pytestmark = pytest.mark.workflow


def unlock(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/unlock.py")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def make_lock(folder: Path) -> Path:
    lock = folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/x\n")
    return lock


def test_the_lock_of_another_user_is_left_alone(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can make files of another user")
    lock = make_lock(tmp_path)
    os.chown(lock, 65533, -1)
    done = unlock(tmp_path)
    assert done.returncode == 1
    assert "65533" in done.stderr
    assert "snakemake --unlock" in done.stderr
    assert lock.exists()


def test_who_reads_a_log_of_snakemake_runs_nothing(tmp_path: Path) -> None:
    lock = make_lock(tmp_path)
    (tmp_path / ".snakemake/log").mkdir()
    (tmp_path / ".snakemake/log/a.snakemake.log").write_text("all that was said\n")
    reading = ["tail", "-f", ".snakemake/log/a.snakemake.log"]
    with subprocess.Popen(reading, cwd=tmp_path, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        one.stdout.readline()
        done = unlock(tmp_path)
        one.kill()
    assert done.returncode == 0, done.stderr
    assert not lock.exists()
    lock = make_lock(tmp_path / "other")
    code = "import time; print('here', flush=True); time.sleep(60)"
    working = [sys.executable, "-c", code, "-m", "snakemake"]
    with subprocess.Popen(working, cwd=tmp_path / "other", stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        one.stdout.readline()
        done = unlock(tmp_path / "other")
        one.kill()
    assert done.returncode == 1
    assert lock.exists()


def test_what_killed_runs_left_is_cleaned_and_nothing_else(tmp_path: Path) -> None:
    lock = make_lock(tmp_path)
    kept = [
        "state/a/checkpoint.safetensors",
        "results/x/data/.hidden",
        "results/x/raw/items.parquet",
        "notes/.a.b_c_d_e_",
    ]
    left = [
        "state/a/.checkpoint.safetensors.abc_1234.safetensors",
        "state/b/.checkpoint.safetensors.abcdefgh.safetensors",
        "results/x/raw/.interactions.parquet.12345678.parquet",
        "data/downloads/.0123-log.csv.gz.12345678.gz",
        "results/tables/.names.12345678",
        "state/b/.tmpH2Jz7l",
    ]
    young = "results/x/raw/.rejected.parquet.12345678.parquet"
    for name in [*kept, *left, young]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "state/c/tensorboard").mkdir(parents=True)
    old = time.time() - 3600
    for path in [*map(tmp_path.joinpath, left), *(tmp_path / "state").rglob("*/")]:
        os.utime(path, (old, old))
    done = unlock(tmp_path)
    assert done.returncode == 0, done.stderr
    assert not lock.exists()
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*kept, young}, "what may be written at this moment is left alone, too"
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "log.csv.gz", "names", "a.b.c"])
def test_half_written_files_are_known_by_their_names(tmp_path: Path, name: str) -> None:
    with atomic(tmp_path / name) as temporary:
        assert half_written(tmp_path) == [temporary]
    assert half_written(tmp_path) == []
