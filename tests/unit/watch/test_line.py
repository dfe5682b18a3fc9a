"""The line of progress: what it says, how it is drawn, what it makes of estimates."""

from __future__ import annotations

import io
import time

import pytest

from tessera.watch.line import Beside, Job, Line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still until it is moved."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def job(name: str, seconds: float | None = None, threads: int = 1) -> Job:
    return Job(name, name.split()[0], threads, seconds)


def test_time_left_comes_from_estimates(clock: list[float]) -> None:
    line = Line(io.StringIO())
    line.expect([job("train a", 30.0), job("train b", 30.0), job("embed c", 60.0, threads=2)], cores=2)
    assert line.total == 3
    # 30 + 30 on one core each, 60 on both
    assert line.left() == pytest.approx(90.0)
    line.start(1, job("train a"))
    clock[0] += 10
    assert line.left() == pytest.approx((20 + 30 + 120) / 2)
    clock[0] += 50  # twice as long as was thought: the rest will take longer, too, if not twice as long for one job
    line.finish(1)
    assert line.left() == pytest.approx((60 + 30) / (30 + 30) * (30 + 120) / 2)
    line.close()


def test_one_long_job_is_not_shared_among_cores(clock: list[float]) -> None:
    line = Line(io.StringIO())
    line.expect([job("pretrain a", 100.0), job("table b", 1.0)], cores=8)
    assert line.left() == pytest.approx(100.0)


def test_without_estimates_the_mean_of_finished_jobs_counts(clock: list[float]) -> None:
    line = Line(io.StringIO())
    line.total = 4
    line.start(1, job("train a"))
    assert line.left() is None
    assert "left" not in line.text()
    clock[0] += 20
    line.finish(1)
    assert line.left() == pytest.approx(60.0)
    assert line.text() == "1 of 4 jobs, about 1 min 00 s left"
    line.close()


def test_a_job_that_takes_longer_than_thought_is_never_over(clock: list[float]) -> None:
    line = Line(io.StringIO())
    line.expect([job("train a", 10.0)], cores=1)
    line.start(1, job("train a"))
    clock[0] += 1000
    assert line.left() == pytest.approx(0.5)
    line.close()


def test_a_terminal_is_drawn_upon_and_problems_stand_above(clock: list[float]) -> None:
    stream = Terminal()
    line = Line(stream, width=60)
    line.total = 2
    line.start(1, job("train " + "x" * 100))
    line.say("WARNING: look\n")
    line.finish(1)
    line.close()
    *above, last = stream.getvalue().split("\n")
    assert above[0].endswith("\r\x1b[2KWARNING: look"), "the line is wiped before"
    assert last.endswith("\r\x1b[2K")
    for drawn in stream.getvalue().replace("\n", "\r\x1b[2K").split("\r\x1b[2K"):
        assert len(drawn) < 60
    assert "[██████████··········] 1 of 2 jobs" in stream.getvalue()


def test_off_a_terminal_a_finished_job_is_a_line(clock: list[float]) -> None:
    stream = io.StringIO()
    line = Line(stream)
    line.total = 3
    for number in range(3):
        line.start(number, job(f"train {number}"))
        clock[0] += 5
        line.finish(number)
    line.close()
    assert stream.getvalue().splitlines() == [
        "1 of 3 jobs, about 10 s left; done: train 0 (5 s)",
        "2 of 3 jobs, about 5 s left; done: train 1 (5 s)",
        "3 of 3 jobs; done: train 2 (5 s)",
    ]


def test_many_short_jobs_share_a_line(clock: list[float]) -> None:
    stream = io.StringIO()
    line = Line(stream)
    line.total = 100
    for number in range(100):
        line.start(number, job(f"table {number}"))
        clock[0] += 0.1
        line.finish(number)
    line.close()
    assert 8 <= len(stream.getvalue().splitlines()) <= 12
    assert "and 7 more" in stream.getvalue()


def test_what_the_program_prints_stands_above_in_whole_lines() -> None:
    stream = Terminal()
    line = Line(stream, width=80)
    beside = Beside(line)
    print("one", "two", file=beside)
    print("three", end="", file=beside)
    assert stream.getvalue() == "one two\n"
    beside.rest()
    assert stream.getvalue() == "one two\nthree\n"
