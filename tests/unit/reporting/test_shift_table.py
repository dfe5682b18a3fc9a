"""Test sets that differ from training, in tables and page: means, drops, tests over their users, and what is told."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reporting_world import ORDER, metric_files, representation_files, run_paths

from tessera.artifacts.tables import read_table, write_table
from tessera.data.dataset import load_dataset
from tessera.evaluation import metrics
from tessera.evaluation.shift import members
from tessera.evaluation.significance import enough_resamples, randomization
from tessera.reporting import formats
from tessera.reporting.ranking import RankingTable, collect, load
from tessera.reporting.ranking_page import build
from tessera.reporting.tables import Column
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.reporting import Report

SHIFTS = {"late": {"kind": "temporal", "after": 0.4}, "rare": {"kind": "popularity", "share": 0.3},
          "few": {"kind": "popularity", "share": 0.05}}  # fmt: skip
SIGNIFICANCE = Significance(resamples=1000, baseline="id/sasrec")


def kept(results: Path, path: Path, shifts: dict[str, Any] = SHIFTS) -> Evaluation:
    """The sets of the world's dataset, written; gives the settings."""
    settings = Evaluation.model_validate({"shift": shifts})
    table, facts = members(load_dataset(results / "bazaar/data"), settings.shift, True, True)
    write_table(path, table, "shifts", facts=facts)
    return settings


@pytest.fixture(scope="module")
def path(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets") / "shifts.parquet"


@pytest.fixture(scope="module")
def table(results: Path, path: Path) -> RankingTable:
    settings = kept(results, path)
    return collect("bazaar", metric_files(results), ORDER, settings, SIGNIFICANCE, shifts=path)


def users_of(path: Path, name: str, part: str) -> set[int]:
    rows = read_table(path, "shifts").to_pylist()
    return {row["user"] for row in rows if row["shift"] == name and row[part]}


def ndcg(run: Any, users: Iterable[int]) -> np.ndarray:
    """NDCG@10 of some users, in their order, cold targets as misses."""
    rows = {row["user"]: row for row in run.evaluation("user", "rank", "popularity").to_pylist()}
    chosen = [rows[user] for user in sorted(users)]
    return np.array([metrics.ndcg(np.array([r["rank"]]), 10)[0] if r["popularity"] else 0.0 for r in chosen])


def test_cells_are_means_over_the_users_of_a_set(table: RankingTable, path: Path) -> None:
    for entry in table.entries:
        for name in SHIFTS:
            here, there = (
                [ndcg(run, users_of(path, name, part)).mean() for run in entry.runs] for part in ("shifted", "natural")
            )
            for column, values in (
                (Column("NDCG@10", "shifted", name), here),
                (Column("NDCG@10", "in distribution", name), there),
                (
                    Column("drop of NDCG@10", "shifted", name),
                    [100 * (1 - a / b) for a, b in zip(here, there, strict=True)],
                ),
            ):
                cell = table.cells[entry.name, column]
                # a drop is that between the means, not a mean of drops
                dropped = column.metric.startswith("drop")
                mean = 100 * (1 - np.mean(here) / np.mean(there)) if dropped else np.mean(values)
                assert cell.mean == pytest.approx(mean)
                assert cell.sd == (pytest.approx(np.std(values, ddof=1)) if len(values) > 1 else None)
            assert table.cells[entry.name, Column("NDCG@10", "shifted", name)].count == len(
                users_of(path, name, "shifted")
            )


def test_everything_else_stays(results: Path, table: RankingTable) -> None:
    plain = collect("bazaar", metric_files(results), ORDER, Evaluation(), SIGNIFICANCE)
    own = {"shifted", "in distribution"}
    assert {key for key in table.cells if key[1].kind not in own} == set(plain.cells)
    for key, cell in plain.cells.items():
        mine = table.cells[key]
        assert (mine.mean, mine.sd, mine.count, mine.difference) == (cell.mean, cell.sd, cell.count, cell.difference)
    # a table of more columns is a larger family of tests
    assert table.comparisons == plain.comparisons + 2 * len(table.rivals)


def test_systems_are_tested_over_the_users_of_a_set(table: RankingTable, path: Path) -> None:
    base = next(entry for entry in table.entries if entry.name == "id/sasrec")
    users = users_of(path, "late", "shifted")
    for entry, rival in table.rivals:
        assert rival.name == base.name
        mine, theirs = (np.mean([ndcg(run, users) for run in one.runs], axis=0) for one in (entry, base))
        cell = table.cells[entry.name, Column("NDCG@10", "shifted", "late")]
        assert cell.difference == pytest.approx((mine - theirs).mean())
        resamples = enough_resamples(SIGNIFICANCE, table.comparisons)
        assert cell.p == pytest.approx(randomization(mine - theirs, resamples, SIGNIFICANCE.seed)[0])
    drop = table.cells["semantic/sasrec", Column("drop of NDCG@10", "shifted", "late")]
    assert drop.p is None
    assert not drop.best  # who has little has little to lose


def test_columns_and_notes(table: RankingTable, path: Path) -> None:
    heads = [table.header(column) for column in table.columns]
    # four users are no set to show, and all users stand in the other columns already
    assert len(users_of(path, "few", "shifted")) == 4
    assert len(users_of(path, "rare", "natural")) == table.judged.users
    assert heads[-5:] == ["NDCG@10 beside late", "late NDCG@10", "late drop in %", "rare NDCG@10", "rare drop in %"]
    assert [table.header(column) for column in table.apart][-3] == "NDCG@10 beside rare"
    text = formats.markdown(table)
    late, early = (len(users_of(path, "late", part)) for part in ("shifted", "natural"))
    assert f"late: {late} users whose target is from 2020-" in text
    assert f"beside {early} whose target is earlier; training ends at 2020-" in text
    rare, known = (len(users_of(path, "rare", part)) for part in ("shifted", "natural"))
    assert f"rare: {rare} of {known} users with a known target, drawn once by 1 / " in text.replace("\\", "")
    assert f"WARNING: only {rare} test users in rare" in text
    assert "few drop in %" not in text


def test_both_sets_have_to_be_large_enough(table: RankingTable) -> None:
    narrow = replace(table, cells={key: replace(cell) for key, cell in table.cells.items()})
    for (_, column), cell in narrow.cells.items():
        if (column.kind, column.group) == ("in distribution", "late"):
            cell.count = 3
    assert "late" not in {column.group for column in narrow.apart}
    assert "only 3 test users beside late, so little can be told apart" in narrow.warnings()


def test_a_written_table_reads_back_and_the_page_shows_the_sets(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    settings = kept(tree, tree / "bazaar/data/shifts.parquet")
    files = metric_files(tree)
    made = collect("bazaar", files, ORDER, settings, SIGNIFICANCE, shifts=tree / "bazaar/data/shifts.parquet")
    formats.write(made, {kind: tree / "tables" / f"bazaar.{kind}" for kind in formats.FORMATS})
    back = load(tree / "tables/bazaar.parquet", files, ORDER)
    assert (back.cells, back.columns, back.apart, back.notes()) == (made.cells, made.columns, made.apart, made.notes())
    page = tree / "report" / "index.html"
    build(page, Report(), {"bazaar": run_paths(tree)}, {}, tree, **representation_files(tree))
    text = page.read_text()
    block = text[text.index("Test sets that differ from training</h4>") :].split("</table>")[0]
    assert block.count('scope="row"') == len(made.entries)
    assert "late drop in %" in block
    assert "NDCG@10 beside rare" in block
    before = text[: text.index("Test sets that differ from training</h4>")]
    assert "late drop in %" not in before[before.index("<table") :]
    assert "drawn once by 1 / (training interactions of the target) ^ 1" in before
