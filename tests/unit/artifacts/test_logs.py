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


def test_permanent_errors_end_further_attempts_of_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(run: str, ends: str) -> str:
        monkeypatch.setenv("TESSERA_RUN", run)
        code = STAGE + "print('ran')\n    " + ends
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        return done.stdout + done.stderr

    path = tmp_path / "log"
    for passing in ("raise OSError('no space left')", "raise MemoryError", "raise RuntimeError('out of memory')"):
        assert "ran" in attempt("a", passing), "what may pass is tried again"
    assert "ran" in attempt("a", "raise ValueError('bad.csv: no column')")
    path.unlink()  # as the workflow does before each attempt
    again = attempt("a", "pass")
    assert "ran" not in again
    assert "ERROR: bad.csv: no column (not tried again" in again
    assert "ran" in attempt("b", "raise FileNotFoundError('gone.csv')"), "another run tries again"
    assert "ran" not in attempt("b", "pass")


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
