"""Jobs of one machine compute each on devices of their own; the devices are names here, the locks are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tessera.artifacts import gpus
from tessera.artifacts.gpus import VISIBLE, own_gpus, visible_gpus

ROOT = Path(__file__).resolve().parents[3]
JOB = """
import json, os, sys, time
from tessera.artifacts.logs import stage
with stage(None, gpus=int(sys.argv[1])):
    print(json.dumps(os.environ["CUDA_VISIBLE_DEVICES"]), flush=True)
    time.sleep(float(sys.argv[2]))
"""
Job = subprocess.Popen[str]


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpus.tempfile, "tempdir", None)
    monkeypatch.setattr(gpus, "WAIT", 0.05)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))

    def started(count: int, seconds: float) -> Job:
        return subprocess.Popen(
            [sys.executable, "-c", JOB, str(count), str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip

    return started


def seen(job: Job) -> str:
    assert job.stdout is not None
    line: str = json.loads(job.stdout.readline())
    return line


def test_each_job_has_a_device_and_the_next_waits(start: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3,5")
    first, second = start(1, 60), start(1, 60)
    assert {seen(first), seen(second)} == {"3", "5"}
    lines: list[str] = []
    first.kill()  # however a job ends, its device is free again
    first.wait()
    with own_gpus(1, lines.append) as devices:
        assert devices in (["3"], ["5"])
        third = start(1, 0)
        time.sleep(1.5)
        assert third.poll() is None  # both are held
    assert seen(third) == devices[0]
    assert lines == [f"computes on GPU {devices[0]}"]
    second.kill()
    assert (second.wait(), third.wait()) == (-9, 0)


def test_two_devices_are_taken_at_once_or_not_at_all(
    start: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1,2")
    with own_gpus(2, lambda _: None) as two:
        assert two == ["0", "1"]
        assert visible_gpus() == two  # what children see
        monkeypatch.setenv(VISIBLE, "0,1,2")
        waiting = start(2, 0)
        time.sleep(1.5)
        assert waiting.poll() is None
        with own_gpus(1, lambda _: None) as one:
            assert one == ["2"]  # the one that waits holds none
        monkeypatch.setenv(VISIBLE, "0,1")
    assert seen(waiting) in ("0,1", "0,2", "1,2")
    assert waiting.wait() == 0


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "GPU-8f1c,GPU-22ab")
    with own_gpus(1, lambda _: None) as devices:
        assert devices == ["GPU-8f1c"]
    assert visible_gpus() == ["GPU-8f1c", "GPU-22ab"]
    with pytest.raises(ValueError, match="gpu: 3 are asked for, and this machine shows 2"), own_gpus(3, print):
        pass


@pytest.mark.parametrize("why", ["none asked", "none there", "slurm"])
def test_nothing_is_done_where_nothing_is_to_be_dealt_out(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "" if why == "none there" else "0,1")
    if why == "slurm":
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    lines: list[str] = []
    with own_gpus({"none asked": 0, "none there": 1, "slurm": 2}[why], lines.append) as devices:
        assert devices == ([] if why == "none there" else ["0", "1"])
    assert lines == []


def test_jobs_inside_one_allocation_share_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with own_gpus(1, print) as first:
        monkeypatch.setenv(VISIBLE, "0,1")  # as another job sees it
        with own_gpus(1, print) as second:
            assert (first, second) == (["0"], ["1"])
            monkeypatch.setenv("SLURM_JOB_ID", "8")  # of other devices, under the same numbers
            monkeypatch.setenv(VISIBLE, "0,1")
            with own_gpus(1, print) as other:
                assert other == ["0"]


def test_devices_are_those_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    for name in ("nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path) == ["0"]  # the fourth of the host is the first that a container sees
    (tmp_path / "nvidia10").touch()
    assert visible_gpus(tmp_path) == ["0", "1"]
    monkeypatch.setenv(VISIBLE, "1, 0,-1,2")
    assert visible_gpus(tmp_path) == ["1", "0"]


def test_every_stage_that_may_ask_for_a_gpu_says_so() -> None:
    for path in (ROOT / "scripts").glob("*.py"):
        text = path.read_text()
        if "params.threads, snakemake.resources.attempt" in text:
            assert 'snakemake.resources.get("gpu", 0)' in text, path


def test_locks_lie_in_no_folder_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"tessera-gpus-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(ValueError, match=r"tessera-gpus-\d+: is not a folder of your own, .*; set TMPDIR"),
        own_gpus(1, print),
    ):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())
