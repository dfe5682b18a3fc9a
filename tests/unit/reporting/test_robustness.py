"""Metrics at missing rates: areas and falls against numpy, flat lines, tests over users, files, plots and the page."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reporting_world import ORDER, metric_files, representation_files, run_paths

from tessera.artifacts.files import read_json
from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.evaluation.metrics import ndcg
from tessera.reporting.formats import FORMATS, write
from tessera.reporting.ranking_page import build
from tessera.reporting.robustness import AREA, RobustnessTable, by_rate, collect, load
from tessera.reporting.tables import Cell, Column
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.missing import Robustness
from tessera.settings.reporting import Report

SETTINGS = Robustness(patterns=["item_consistent", "block"], lose=["image", "both"], rates=[0.0, 0.25, 0.5, 1.0])
SLOPES = {("item_consistent", "image"): 4, ("item_consistent", "both"): 12, ("block", "image"): 2, ("block", "both"): 8}


def corrupted(run: Path) -> pa.Table:
    """Ranks that fall by so many places at the rate 1, of users in an order of their own."""
    judged = read_table(run / "evaluation.parquet", "evaluation").sort_by("user")
    parts = []
    for (pattern, lose), slope in SLOPES.items():
        for rate in SETTINGS.rates:
            names = {name: [text] * len(judged) for name, text in (("pattern", pattern), ("lose", lose))}
            kept = {name: judged.column(name) for name in ("user", "item", "popularity", "repeat")}
            rank = judged.column("rank").to_numpy() + slope * rate
            part = pa.table({**names, "rate": np.full(len(judged), rate), **kept, "rank": rank})
            parts.append(part.take(np.random.default_rng(round(4 * rate)).permutation(len(part))))
    return pa.concat_tables(parts)


@pytest.fixture(scope="module")
def world(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of results, in which `semantic` was judged at missing rates."""
    tree = shutil.copytree(results, tmp_path_factory.mktemp("robust") / "results")
    for metrics in metric_files(tree):
        if read_json(metrics)["system"] == "semantic":
            write_table(metrics.with_name("corruption.parquet"), corrupted(metrics.parent), "corruption")
    return tree


def made(world: Path, settings: Robustness = SETTINGS) -> RobustnessTable:
    files = sorted((world / "bazaar").rglob("corruption.parquet"))
    rules = Evaluation(), Significance(resamples=500, baseline="id")
    return collect("bazaar", metric_files(world), files, ORDER, *rules, settings)


@pytest.fixture(scope="module")
def table(world: Path) -> RobustnessTable:
    return made(world)


def test_points_and_areas_are_those_of_the_ranks(table: RobustnessTable, world: Path) -> None:
    entry = next(entry for entry in table.entries if entry.name == "semantic/sasrec")
    for (pattern, lose), slope in SLOPES.items():
        means = []
        for seed in (1, 2, 3):
            judged = read_table(world / f"bazaar/runs/semantic/sasrec/seed-{seed}/evaluation.parquet", "evaluation")
            rank = np.where(judged.column("popularity").to_numpy() == 0, np.inf, judged.column("rank").to_numpy())
            means.append([ndcg(rank + slope * rate, 10).mean() for rate in SETTINGS.rates])
        expected = np.array(means)
        kind = f"{pattern} {lose}"
        points = [mean for _, mean, _ in table.curve(entry, kind, "NDCG@10")]
        np.testing.assert_allclose(points, expected.mean(0))
        areas = (np.diff(SETTINGS.rates) * (expected[:, 1:] + expected[:, :-1]) / 2).sum(1)
        area = table.cells["semantic/sasrec", Column("NDCG@10", kind, AREA)]
        assert area.mean == pytest.approx(areas.mean())
        assert area.sd == pytest.approx(areas.std(ddof=1))
        fall = table.cells["semantic/sasrec", Column("NDCG@10", kind, "change to 0.5")]
        assert fall.mean == pytest.approx((expected[:, 2] - expected[:, 0]).mean())


def test_who_reads_nothing_of_it_is_flat_and_the_oracle_is_left_out(table: RobustnessTable, world: Path) -> None:
    assert [entry.name for entry in table.entries] == ORDER
    for entry in table.entries[:3]:
        plain = np.mean([read_json(run.path)["metrics"]["NDCG@10"] for run in entry.runs])
        for kind in table.kinds:
            assert [mean for _, mean, _ in table.curve(entry, kind, "NDCG@10")] == pytest.approx([plain] * 4)
            assert table.cells[entry.name, Column("NDCG@10", kind, AREA)].mean == pytest.approx(plain)
            assert table.cells[entry.name, Column("NDCG@10", kind, "change to 1")].mean == 0


def test_areas_and_falls_are_tested_over_users(table: RobustnessTable) -> None:
    tested = {column for name, column in table.cells if table.cells[name, column].p_holm is not None}
    assert tested == set(table.shown)
    assert table.comparisons == len(table.shown) * 2  # semantic and popular against id
    fall = table.cells["semantic/sasrec", Column("NDCG@10", "item_consistent both", "change to 1")]
    assert fall.significant == "down"
    whole = table.cells["semantic/sasrec", Column("NDCG@10", "item_consistent image", "0")]
    assert whole.difference is not None
    assert whole.difference > 0


def test_no_change_is_the_best_one(table: RobustnessTable) -> None:
    """Who reads nothing that is lost has nothing to lose."""
    best = {column.group for (_, column), cell in table.cells.items() if cell.best}
    assert {"0", "1", AREA} <= best
    assert not [group for group in best if group.startswith("change to ")]


def test_files_say_what_was_lost_and_are_read_back(table: RobustnessTable, tmp_path: Path, world: Path) -> None:
    paths = {kind: tmp_path / f"robustness.{kind}" for kind in FORMATS}
    write(table, paths)
    assert load(paths["parquet"], metric_files(world), ORDER).cells == table.cells
    text = paths["md"].read_text().replace("\\", "")
    assert "AUILC of NDCG@10, pictures and texts, block" in text
    assert "NDCG@10 without 50% of pictures, item_consistent" in text
    assert "change of NDCG@10 from 0% to 100% of pictures, block" in text
    assert "block: all modalities over a contiguous stretch of a history" in text
    long = read_table(paths["parquet"], "metrics").to_pandas()
    assert set(long["kind"]) == {f"{pattern} {lose}" for pattern, lose in SLOPES}
    assert {"0", "0.25", "0.5", "1", AREA} <= set(long["group"])
    assert {"Hit@10", "NDCG@10", "MRR"} <= set(long["metric"])


def test_a_plot_a_curve(table: RobustnessTable) -> None:
    plots = by_rate(table, "NDCG@10")
    assert [plot.name for plot in plots] == [
        f"by-missing-rate-{pattern}-{lose}" for pattern, lose in table.kinds.values()
    ]
    cell = table.cells["semantic/sasrec", Column("NDCG@10", "block both", "0.25")]
    says = f"semantic/sasrec: 25% lost, NDCG@10 {cell.mean:.4f} ± {cell.sd:.4f}"
    assert says in plots[-1].description
    assert says in plots[-1].svg
    assert says not in plots[0].svg


def test_rates_have_the_digits_that_were_chosen(world: Path) -> None:
    """A small rate is not nothing, one below all is not all, and no two rates share a name."""
    rates = [0.0, 0.004, 0.9999999, 1.0]
    table = replace(made(world), robustness=Robustness(lose=["both"], rates=rates))
    heads = [table.header(column) for column in table.shown]
    assert heads == [
        "NDCG@10, nothing lost",
        "AUILC of NDCG@10, pictures and texts, item_consistent",
        "NDCG@10 without 0.4% of pictures and texts, item_consistent",
        "NDCG@10 without 100% of pictures and texts, item_consistent",
        "change of NDCG@10 from 0% to 0.4% of pictures and texts, item_consistent",
        "change of NDCG@10 from 0% to 100% of pictures and texts, item_consistent",
    ]
    entry = table.entries[0]
    table.cells = {
        (entry.name, Column("NDCG@10", "item_consistent both", f"{rate:.7g}")): Cell(1 - rate) for rate in rates
    }
    (plot,) = by_rate(table, "NDCG@10")
    shown = [part.partition(": ")[2] for part in plot.description.split("; ")]
    assert [text.partition(" lost")[0] for text in shown] == ["0%", "0.4%", "99.99999%", "100%"]
    assert [text.rpartition(" ")[2] for text in shown] == ["1.0000", "0.9960", "0.0000", "0.0000"]


def test_the_page_shows_table_and_plots(table: RobustnessTable, world: Path) -> None:
    write(table, {kind: world / f"tables/bazaar-robustness.{kind}" for kind in FORMATS})
    page = world / "report" / "index.html"
    config = {"datasets": {"bazaar": {"source": "bazaar"}}, "robustness": {}}
    build(page, Report(), {"bazaar": run_paths(world)}, config, world, **representation_files(world))
    text = page.read_text()
    assert "As pictures and texts go missing at test" in text
    assert "AUILC of NDCG@10, pictures and texts, block" in text
    assert (page.parent / "plots/bazaar/by-missing-rate-block-both.svg").is_file()


def test_ranks_of_other_rates_are_refused(world: Path) -> None:
    other = Robustness(patterns=["block"], lose=["both"], rates=[0.0, 0.3, 1.0])
    with pytest.raises(ArtifactError, match=r"corruption.parquet: has no ranks at the missing rate 0.3"):
        made(world, other)
