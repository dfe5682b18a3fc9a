"""A third task takes the kit as it is: it brings a run and a table of metrics and columns, and no cells or writers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tessera.artifacts.tables import ArtifactError, read_table
from tessera.evaluation.significance import holm
from tessera.reporting.ctr import ClickTable
from tessera.reporting.formats import FORMATS, csv_text, latex, markdown, write
from tessera.reporting.ranking import RankingTable
from tessera.reporting.runs import Entry, Run, baselines_of, grouped, read_metrics
from tessera.reporting.tables import Column, Metric, Table

ERRORS = {"mean": (1.25, 1.35), "a_b": (0.75, 0.85), "best": (0.5, 0.7), "oracle": (0.125,)}


@dataclass(frozen=True, eq=False, kw_only=True)
class RatingRun(Run):
    """One seed of a predictor of ratings."""

    ratings: int

    JUDGED = "ratings.txt"


@dataclass
class RatingTable(Table[RatingRun]):
    """Errors of predicted ratings."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("RMSE", better="smaller", digits=3),
        Metric("seconds", better="smaller", digits=1, title="time", spread=False),
        Metric("ratings", better="neither", digits=0),
    )
    COUNTED: ClassVar[str] = "ratings"

    @property
    def columns(self) -> list[Column]:
        """All of them."""
        return self.filled([Column("RMSE"), Column("RMSE", "history", ">5"), Column("seconds"), Column("MAE")])

    def conditions(self) -> list[str]:
        """None but the seeds."""
        return ["two seeds"]

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def identity(self, entry: Entry[RatingRun]) -> dict[str, str]:
        """The predictor."""
        return {"predictor": entry.system}


def rows(folder: Path) -> list[Entry[RatingRun]]:
    runs = []
    for system, errors in ERRORS.items():
        for seed, error in enumerate(errors, 1):
            path = folder / system / str(seed) / "metrics.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            metrics = {"RMSE": error, "seconds": 3.14 + seed, "ratings": 7.0, "MAE": None}
            groups = {"history": {">5": {"metrics": {"RMSE": error / 2}, "ratings": 4}}}
            path.write_text(json.dumps({"metrics": metrics, "groups": groups}))
            path.with_name(RatingRun.JUDGED).write_text(f"{system} {seed}")
            content = read_metrics(path, ("metrics", "groups"))
            remarks = ("by hand",) if system == "best" else ()
            run = RatingRun(path=path, system=system, seed=seed, users=500, ratings=9, remarks=remarks, **content)
            runs.append(run)
    return grouped(runs, list(ERRORS))


def compared(entries: Sequence[Entry[RatingRun]]) -> RatingTable:
    table = RatingTable("shop", list(entries), baselines_of(entries, "mean", "ratings.baseline"))
    table.average()
    table.mark_best()
    keys = [(entry.name, Column("RMSE")) for entry, _ in table.rivals]
    differences = [table.mean(entry, "RMSE") - table.mean(base, "RMSE") for entry, base in table.rivals]
    table.correct(keys, differences, [0.01, 0.04], 0.05)
    return table


@pytest.fixture
def table(tmp_path: Path) -> RatingTable:
    return compared(rows(tmp_path))


def test_cells(table: RatingTable) -> None:
    best = table.cells["best", Column("RMSE")]
    assert (best.mean, best.sd, best.count) == (pytest.approx(0.6), pytest.approx(0.02**0.5), 9)
    assert table.cells["best", Column("RMSE", "history", ">5")].count == 4
    assert best.best
    assert not table.cells["oracle", Column("RMSE")].best
    assert not any(table.cells[name, Column("ratings")].best for name in ERRORS)
    assert not [key for key in table.cells if key[1].metric == "MAE"]
    corrected = holm([0.01, 0.04])
    assert [table.cells[name, Column("RMSE")].p_holm for name in ("a_b", "best")] == corrected.tolist()
    assert best.significant == "up"  # smaller, which is better
    assert best.difference == pytest.approx(-0.7)
    assert table.cells["oracle", Column("RMSE")].p is None
    assert table.comparisons == 2


def test_every_writer(table: RatingTable, tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"t.{kind}" for kind in FORMATS}
    write(table, paths)
    head, *lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
    assert head == "| predictor | RMSE | history \\>5 RMSE | time |"
    assert lines[3] == "| best | **0.600** ± 0.141 \\*↑ | **0.300** ± 0.071 | **4.6** |"
    assert "two seeds; best: by hand." in markdown(table)
    assert r"a\_b & 0.800{\scriptsize$\pm$0.071}$^{*\uparrow}$ &" in latex(table)
    assert latex(table).count(r"\midrule") == 2
    written = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert [row["remarks"] for row in written] == ["", "", "by hand", ""]
    assert written[2]["RMSE p"] == "0.04"
    long = read_table(paths["parquet"], "metrics")
    assert long.column_names[:6] == ["dataset", "predictor", "kind", "group", "metric", "mean"]
    assert "ratings" in long.column_names
    said = {row["predictor"]: row["remarks"] for row in long.to_pylist()}
    assert said == {**dict.fromkeys(ERRORS, ""), "best": "by hand"}


def test_a_written_table_reads_back(table: RatingTable, tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"t.{kind}" for kind in FORMATS}
    write(table, paths)
    bare = RatingTable("shop", table.entries, [])
    bare.read(paths["parquet"])
    assert bare == table
    fewer = RatingTable("shop", table.entries[1:], [])
    with pytest.raises(ArtifactError, match="tells of mean, which is not among the runs"):
        fewer.read(paths["parquet"])


def test_a_seed_that_stands_twice_and_an_unknown_baseline_are_named(tmp_path: Path) -> None:
    entries = rows(tmp_path)
    with pytest.raises(ArtifactError, match="seed 2 of best was given already"):
        grouped([*(run for entry in entries for run in entry.runs), entries[2].runs[1]])
    with pytest.raises(ValueError, match=r"ratings\.baseline: no run 'bst'; did you mean 'best'"):
        baselines_of(entries, "bst", "ratings.baseline")


def test_tasks_bring_no_cells_tests_or_writers_of_their_own() -> None:
    shared = ("average", "mark_best", "correct", "long_form", "read", "notes", "text", "spread", "interval", "metric")
    for task in (RankingTable, ClickTable):
        assert not [name for name in shared if name in vars(task)]


def test_rows_of_other_seeds_are_named(tmp_path: Path) -> None:
    table = RatingTable("ratings", rows(tmp_path), [])
    assert table.told_seeds() == "mean ± sd over the seeds 1, 2"
    last = table.entries[2].name
    table.entries = [replace(e, runs=e.runs[:1]) if e.name == last else e for e in table.entries]
    assert table.told_seeds() == f"mean ± sd over the seeds 1, 2 ({last}: seed 1)"
    third = replace(table.entries[1].runs[0], seed=3)
    table.entries[1] = replace(table.entries[1], runs=(*table.entries[1].runs, third))
    other = table.entries[1].name
    assert table.told_seeds() in (
        f"mean ± sd over the seeds 1, 2 ({other}: seeds 1, 2, 3; {last}: seed 1)",
        f"mean ± sd over the seeds 1, 2 ({last}: seed 1; {other}: seeds 1, 2, 3)",
    )
    table.entries = [replace(entry, runs=entry.runs[:1]) for entry in table.entries]
    assert table.told_seeds() == "one seed"


def test_rows_that_are_not_trained_have_no_seeds_unless_they_were_given_several(tmp_path: Path) -> None:
    """As a file of another program may be, one a seed; its row has a deviation, which a note must explain."""
    table = RatingTable("ratings", rows(tmp_path), [])
    table.entries = [
        replace(entry, runs=tuple(replace(run, trained=False) for run in entry.runs)) for entry in table.entries
    ]
    assert table.told_seeds() == "mean ± sd over the seeds 1, 2"
    table.entries = [replace(entry, runs=entry.runs[:1]) for entry in table.entries]
    assert table.told_seeds() == "no seeds: nothing was trained"
