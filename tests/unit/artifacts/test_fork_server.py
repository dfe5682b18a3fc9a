"""Jobs forked from a process that has imported what they need are as those that are started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tessera.artifacts import fork_server
from tessera.artifacts.fork_server import SERVERS, ForkedJob, ForkServer, ForkServerError, ForkServers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer(["wave", "a_module_that_nobody_has"])
    yield made
    made.requests().close()


def write(folder: Path, text: str) -> Path:
    script = folder / "tmp1a2b.work.py"
    script.write_text(text)
    return script


def run(server: ForkServer, script: Path, **variables: str) -> int:
    with server.job(script, os.environ | variables, script.parent) as job:
        return job.run()


def test_a_job_has_its_own_folder_variables_and_modules(server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("here = 'beside the script'\n")
    script = write(
        tmp_path,
        "import json, os, sys\n"
        "seen = {'loaded': 'wave' in sys.modules, 'library': [m for m in sys.modules if m.startswith('tessera')],\n"
        "        'folder': os.getcwd(), 'word': os.environ['WORD'], 'arguments': sys.argv, 'name': __name__}\n"
        "import beside, tempfile\n"
        "seen |= {'beside': beside.here, 'temporary': tempfile.gettempdir(), 'input': sys.stdin.read()}\n"
        "open('seen.json', 'w').write(json.dumps(seen))\n",
    )
    (tmp_path / "short").mkdir()
    assert run(server, script, WORD="own", TMPDIR=str(tmp_path / "short")) == 0
    assert json.loads((tmp_path / "seen.json").read_text()) == {
        "loaded": True, "library": [], "folder": str(tmp_path), "word": "own", "arguments": [str(script)],
        "name": "__main__", "beside": "beside the script", "temporary": str(tmp_path / "short"), "input": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("print('a line')", 0, "a line"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit(None)", 0, ""),
        ("import sys; sys.exit('what was wrong')", 1, "what was wrong"),
        ("raise ValueError('a mistake')", 1, "ValueError: a mistake"),
        ("import atexit; atexit.register(print, 'at the end')", 0, "at the end"),
        ("import threading; threading.Timer(0.2, print, ['of a thread']).start()", 0, "of a thread"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_how_a_job_ends(
    server: ForkServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, code: int, said: str
) -> None:
    assert run(server, write(tmp_path, text)) == code
    out, error = capfd.readouterr()
    assert said in out + error
    assert said or not out + error


def test_a_job_ends_as_a_python_that_is_started(server: ForkServer, tmp_path: Path) -> None:
    ends = ["import sys; sys.exit(3)", "1 / 0", "import sys; sys.exit(['a', 'list'])", "import sys; sys.exit(-1)",
            "import os; os.kill(os.getpid(), 9)"]  # fmt: skip
    for text in ends:
        script = write(tmp_path, text)
        started = subprocess.run([sys.executable, script], check=False, capture_output=True)
        assert run(server, script) == started.returncode


def test_jobs_run_side_by_side_and_are_told_apart(server: ForkServer, tmp_path: Path) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(4) as threads:
        jobs = []
        for number in range(4):
            script = tmp_path / f"tmp{number}.work.py"
            script.write_text(f"import time, sys; time.sleep({0.4 - 0.1 * number}); sys.exit({number})")
            jobs.append(stack.enter_context(server.job(script, os.environ, tmp_path)))
        assert len({job.pid for job in jobs}) == 4
        assert list(threads.map(ForkedJob.run, jobs)) == [0, 1, 2, 3]


def test_a_job_is_seen_under_its_name(server: ForkServer, tmp_path: Path) -> None:
    with running(server, write(tmp_path, "import time; time.sleep(60)")) as (process, code):
        wait_until(lambda: process.name() == "work.py")
        process.kill()
        assert code.result() == -signal.SIGKILL


def test_a_job_waits_for_who_watches_it(server: ForkServer, tmp_path: Path) -> None:
    script = write(tmp_path, "open('begun', 'w')")
    with server.job(script, os.environ, tmp_path) as job:
        time.sleep(0.2)
        assert psutil.Process(job.pid).is_running()
    wait_until(lambda: not psutil.pid_exists(job.pid))
    assert not (tmp_path / "begun").exists()


@contextmanager
def running(server: ForkServer, script: Path) -> Iterator[tuple[psutil.Process, Future[int]]]:
    """A job at work, and its exit code to come."""
    with server.job(script, os.environ, script.parent) as job, ThreadPoolExecutor(1) as thread:
        yield psutil.Process(job.pid), thread.submit(job.run)


def wait_until(true: object, seconds: float = 20) -> None:
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_meant_for_the_jobs_leaves_the_server(tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal: jobs end, and who forks them can say how."""
    server = ForkServer([])
    script = write(tmp_path, "import time; open('begun', 'w'); time.sleep(60)")
    with running(server, script) as (process, code):
        parent = process.parent()
        assert parent is not None
        wait_until((tmp_path / "begun").exists)
        for one in (parent, process):
            one.send_signal(signal.SIGINT)
        assert code.result() == -signal.SIGINT
    server.requests().close()
    assert parent.wait(20) == 0


def test_what_a_person_lets_be_ignored_is_ignored(tmp_path: Path) -> None:
    """`nohup ./run`: the terminal may go."""
    text = "import os, signal, sys; os.kill(os.getpid(), signal.SIGHUP); sys.exit(5)"
    ends = []
    for handler in (signal.SIG_IGN, signal.SIG_DFL):
        before = signal.signal(signal.SIGHUP, handler)
        try:
            server = ForkServer([])
            ends.append(run(server, write(tmp_path, text)))
        finally:
            signal.signal(signal.SIGHUP, before)
        server.requests().close()
    assert ends == [5, -signal.SIGHUP]


def test_jobs_end_with_the_server(tmp_path: Path) -> None:
    server = ForkServer([])
    script = write(tmp_path, "import time; open('begun', 'w'); time.sleep(60)")
    with running(server, script) as (process, code):
        wait_until((tmp_path / "begun").exists)
        parent = process.parent()
        assert parent is not None
        parent.kill()
        assert code.result() == -signal.SIGKILL
        process.wait(20)


def test_without_a_server_a_job_is_to_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    script = write(tmp_path, "")
    with pytest.raises(ForkServerError), ForkServer([]).job(script, os.environ, tmp_path):
        pass


def test_variables_of_any_length_never_end_a_job(server: ForkServer, tmp_path: Path) -> None:
    """More than a message may hold: it is started by itself."""
    script = write(tmp_path, "")
    with pytest.raises(ForkServerError), server.job(script, {"LONG": "x" * 2**22}, tmp_path):
        pass
    assert run(server, script) == 0


def test_servers_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "can_fork", lambda: True)
    monkeypatch.delenv(SERVERS, raising=False)
    made = ForkServers(["json"])
    assert made.of("prepare.py") is None
    assert made.of("report.py") is made.of("atlas.py") is made.by_family["science"]
    assert made.of("train.py") is made.of("quantize.py") is made.by_family["torch"]
    assert made.of("tune.py") is made.by_family["language"]
    assert made.by_family["torch"].modules[-1] == "json"
    monkeypatch.setenv(SERVERS, "none")
    assert ForkServers().of("train.py") is None
    monkeypatch.delenv(SERVERS)
    monkeypatch.setattr(fork_server, "can_fork", lambda: False)
    assert ForkServers().of("train.py") is None


def test_the_slowest_server_starts_early_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(fork_server, "can_fork", lambda: True)
    monkeypatch.setattr(ForkServer, "requests", lambda server: asked.append(tuple(server.modules)))
    monkeypatch.delenv(SERVERS, raising=False)
    ForkServers().start_early(["prepare.py", "train.py"])
    assert not asked
    ForkServers().start_early(["prepare.py", "pretrain.py", "train.py"])
    assert asked == [fork_server.LANGUAGE]
    monkeypatch.setenv(SERVERS, "none")
    ForkServers().start_early(["pretrain.py"])
    assert len(asked) == 1


def test_servers_that_another_process_started(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVERS, f"torch={os.dup(server.requests().fileno())}")
    made = ForkServers().of("train.py")
    assert made is not None
    assert run(made, write(tmp_path, "import sys; sys.exit(5 if 'wave' in sys.modules else 1)")) == 5


def test_none_is_forked_beside_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "gpu"
    monkeypatch.setattr(fork_server, "_GPU", (str(device),))
    assert fork_server.can_fork()
    device.touch()
    assert not fork_server.can_fork()


WITHOUT_OUTPUT = """
import os, sys
from pathlib import Path
from tessera.artifacts.fork_server import ForkServer
with ForkServer([]).job(sys.argv[1], os.environ, Path(sys.argv[1]).parent) as job:
    sys.exit(job.run())
"""


def test_a_run_whose_output_is_closed_has_jobs_that_end_well(tmp_path: Path) -> None:
    script = write(tmp_path, "import sys\nassert sys.stdout is None\nprint('nobody reads it')\n")
    command = [sys.executable, "-c", WITHOUT_OUTPUT, str(script)]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
