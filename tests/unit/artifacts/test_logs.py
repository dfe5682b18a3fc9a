"""What a stage says: expected errors in one line, progress with the time left, a clean end on SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tessera.artifacts.logs import Progress, duration

STAGE = "import sys\nfrom tessera.artifacts.logs import log, stage\nwith stage(sys.argv[1]):\n    "


def run(body: str, log: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", STAGE + body, str(log)], capture_output=True, text=True, check=False)


def test_an_expected_error_is_one_line(tmp_path: Path) -> None:
    done = run("raise ValueError('log.csv: line 3: no user')", tmp_path / "logs" / "a.log")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ERROR: log.csv: line 3: no user" in done.stderr
    text = (tmp_path / "logs" / "a.log").read_text()
    assert "Traceback" in text
    assert "ERROR: log.csv" in text


def test_an_unexpected_error_shows_its_traceback(tmp_path: Path) -> None:
    done = run("{}['x']", tmp_path / "a.log")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError" in (tmp_path / "a.log").read_text()


def test_attempts_are_appended(tmp_path: Path) -> None:
    for word in ("first", "second"):
        assert run(f"log.info('{word}')", tmp_path / "a.log").returncode == 0
    assert [line.split()[-1] for line in (tmp_path / "a.log").read_text().splitlines()] == ["first", "second"]


def test_sigterm_unwinds_and_exits_143(tmp_path: Path) -> None:
    body = "\n    ".join(
        [
            "import time",
            "try:",
            "    print('ready', flush=True)",
            "    time.sleep(60)",
            "finally:",
            "    print('saved')",
        ]
    )
    command = [sys.executable, "-c", STAGE + body, str(tmp_path / "a.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "saved\n"
    assert process.returncode == 143


def test_progress_lines_have_count_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    from tessera.artifacts.logs import log

    log.propagate = True
    with caplog.at_level("INFO", "tessera"), Progress("users", 1000, "users", seconds=0.0) as progress:
        progress.update(250, "loss 1.5")
    assert "users: 250 of 1,000 users" in caplog.text
    assert "left" in caplog.text
    assert "loss 1.5" in caplog.text


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


ATTEMPT = STAGE.replace("sys.argv[1]", "sys.argv[1], attempt=int(sys.argv[2])")


def attempt(number: int, body: str, log: Path) -> subprocess.CompletedProcess[str]:
    """As Snakemake runs it: the log of the attempt before is removed."""
    log.unlink(missing_ok=True)
    command = [sys.executable, "-c", ATTEMPT + body, str(log), str(number)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_stays_wrong_is_not_tried_again(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert "ERROR: no user" in attempt(1, "raise ValueError('no user')", log).stderr
    for number in (2, 3):
        done = attempt(number, "print('worked')", log)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
        assert "ERROR: no user" in log.read_text()
        assert "Traceback" in log.read_text()
        assert "not tried again" in log.read_text()
    assert attempt(1, "print('worked')", log).stdout == "worked\n", "a run that is started again tries again"
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


PASSING = "type('Away', (ValueError, __import__('tessera').artifacts.logs.PassingError), {})('no network: an Error')"


@pytest.mark.parametrize(
    "error", ["OSError('no answer')", "MemoryError()", "ChildProcessError('killed')", "{}['x']", PASSING]
)
def test_what_may_pass_is_tried_again(tmp_path: Path, error: str) -> None:
    assert attempt(1, f"raise {error}" if "Error" in error else error, tmp_path / "a.log").returncode == 1
    assert attempt(2, "print('worked')", tmp_path / "a.log").stdout == "worked\n"


def test_a_process_that_takes_part_keeps_its_error(tmp_path: Path) -> None:
    inner = "raise ValueError('no user')"
    assert attempt(0, inner, tmp_path / "a.log").returncode == 1
    assert attempt(2, "print('worked')", tmp_path / "a.log").stdout == ""


FULL = """import numpy as np, pyarrow as pa, pyarrow.parquet as pq, resource, torch
    from pathlib import Path
    from tessera.artifacts.files import atomic, write_text
    from tessera.artifacts.models import write_tensors
    numbers = np.arange(100_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    out = Path(sys.argv[1]).with_name("out.bin")
    """


@pytest.mark.parametrize(
    "write",
    [
        "write_text(out, 'x' * 1_000_000)",
        "write_tensors(out, {'a': torch.from_numpy(numbers)})",
        "with atomic(out) as path: pq.write_table(pa.table({'a': numbers}), path)",
        "with atomic(out) as path, path.open('wb') as file: np.save(file, numbers)",
        "with atomic(out) as path, path.open('w') as file: [file.write('line ' * 100) for _ in range(1000)]",
    ],
)
def test_a_full_disk_is_told_by_its_path(tmp_path: Path, write: str) -> None:
    done = run(FULL + write, tmp_path / "a.log")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"ERROR: {tmp_path / 'out.bin'}: cannot be written: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def test_a_log_that_cannot_be_written_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to("/dev/full")
    done = run("log.info('hello'); raise ValueError('no user')", tmp_path / "a.log")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 2
    assert "Traceback" not in done.stderr


ENDING = """
import atexit, gc, sys, weakref
from tessera.artifacts.logs import stage
class Cycle:
    pass
atexit.register(lambda: print("held at the end", gc.get_freeze_count() > 1000))
with stage(None), stage(None):
    one = Cycle()
    one.self, gone = one, weakref.ref(one)
    del one
    gc.collect()
    print("held before", gc.get_freeze_count(), gone())
atexit.register(lambda: print("as ever", gc.get_freeze_count()))
"""


def test_a_stage_ends_without_looking_for_cycles_and_runs_what_is_to_run_then() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["held before 0 None", "as ever 0", "held at the end True"]
    assert done.stderr == ""
