"""What went wrong in a run is told last, framed, from the logs of its stages."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tessera.artifacts.failures import framed, summary, warned_of
from tessera.artifacts.logs import log, stage


def test_what_stages_said_is_told(tmp_path: Path) -> None:
    now = time.time()
    stamp, before = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in (now, now - 60))
    (tmp_path / "train/shop").mkdir(parents=True)
    (tmp_path / "train/shop/seed-1.log").write_text(
        f"{before} ERROR: of a former run\n{stamp} reading\nTraceback\n{stamp} ERROR: log.csv: line 3\n"
        f"{stamp} ERROR: log.csv: line 3\n"
    )
    (tmp_path / "report.log").write_text(
        f"{stamp} UNEXPECTED ERROR\nTraceback (most recent call last):\n  File x\nKeyError: 'x'\n"
    )
    (tmp_path / "good.log").write_text(f"{stamp} done\n")
    (tmp_path / "old.log").write_text(f"{stamp} ERROR: long ago\n")
    os.utime(tmp_path / "old.log", (now - 60, now - 60))
    said = summary(tmp_path, now - 5)
    assert said.splitlines()[0] == said.splitlines()[-1]
    assert "train/shop/seed-1 failed:\n  log.csv: line 3\n  all of its log: " in said
    assert "report failed:\n  an error that nobody expected: KeyError: 'x'\n" in said
    assert "long ago" not in said
    assert "former" not in said
    assert summary(tmp_path / "nothing", now) == ""


def test_a_frame_is_as_wide_as_its_text() -> None:
    assert framed("a\n" + "b" * 30).splitlines() == ["─" * 30, "a", "b" * 30, "─" * 30]


def test_what_a_stage_warned_of_is_found_in_its_log(tmp_path: Path) -> None:
    path = tmp_path / "ingest.log"
    path.write_text("2020-01-01 00:00:00 WARNING: of a former run\n")
    since = time.time()
    with stage(path):
        log.info("read 7 rows")
        log.warning("rejected %d rows", 3)
        log.warning("rejected %d rows", 3)
    assert warned_of(path, since) == ["rejected 3 rows"]
    with stage(path):
        for number in range(9):
            log.warning("item %d", number)
    assert warned_of(path, since)[1:] == ["item 0", "item 1", "item 2", "item 3", f"... and 5 more, in {path}"]
