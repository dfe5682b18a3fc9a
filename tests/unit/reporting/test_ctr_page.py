"""The table and the page of click-through models, from predictions made by hand."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click_world import RUNS, SETTINGS, make

from tessera.artifacts.files import read_json, write_json, write_text
from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.evaluation import clicks
from tessera.reporting.ctr import collect
from tessera.reporting.ctr_page import build
from tessera.reporting.ctr_plots import all_plots
from tessera.reporting.formats import csv_text, latex, markdown, write
from tessera.reporting.runs import Entry
from tessera.reporting.tables import Cell, Column
from tessera.settings.clicks.r2led import R2LEDSettings
from tessera.settings.reporting import Report


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("ctr") / "results")


@pytest.fixture(scope="module")
def table(results: Path):
    files = [results / "shop/ctr/runs" / path / "metrics.json" for path in RUNS]
    return collect("shop", files, "base", SETTINGS)


def cell(table, name, metric="AUC", kind="", group=""):
    return table.cells[name, Column(metric, kind, group)]


def test_means_and_tests(table, results):
    aucs = []
    for seed in (1, 2):
        read = read_table(results / f"shop/ctr/runs/good_<one>/seed-{seed}/predictions.parquet", "ctr_predictions")
        aucs.append(clicks.auc(read.column("label").to_numpy(), read.column("probability").to_numpy()))
    good = cell(table, "good_<one>")
    assert good.mean == pytest.approx(np.mean(aucs))
    assert good.sd == pytest.approx(np.std(aucs, ddof=1))
    assert good.low < good.mean < good.high
    assert (good.significant, good.best) == ("up", True)
    assert cell(table, "good_<one>", "log loss").significant == "up"  # lower, which is better
    assert cell(table, "oracle").best is False
    assert cell(table, "oracle").p is None
    assert cell(table, "base").p is None
    assert table.comparisons == 6


def test_a_difference_is_paired(table):
    same = cell(table, "same")
    assert same.difference == pytest.approx(same.mean - cell(table, "base").mean)
    assert same.p_holm >= same.p


def test_files(table, tmp_path):
    outputs = {kind: tmp_path / f"t.{kind}" for kind in ("parquet", "csv", "md", "tex")}
    write(table, outputs)
    rows = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert [row["model"] for row in rows] == ["base", "good_<one>", "same", "oracle"]
    assert float(rows[1]["AUC"]) == pytest.approx(cell(table, "good_<one>").mean, rel=1e-5)
    assert rows[0]["recall"] == ""
    text = markdown(table)
    assert r"good\_\<one\>" in text
    assert "1,200 test impressions of 60 users" in text
    assert "WARNING: only 60 test users, so little can be told apart" in text
    assert "WARNING: only 60 test users" in latex(table)
    assert "history \\>50 AUC" in text
    assert r"good\_\textless{}one\textgreater{}" in latex(table)
    long = read_table(outputs["parquet"], "metrics").to_pylist()
    mine = [row for row in long if row["model"] == "same" and row["metric"] == "p50_ms"]
    assert [row["mean"] for row in mine] == [0.2]


def test_calibration_has_columns_in_files_and_a_table_of_its_own_on_the_page(results, table):
    shown = [
        Column(m, *w) for m in ("log loss", "ECE") for w in ((), ("calibrated", "Platt"), ("calibrated", "isotonic"))
    ]
    assert table.calibrated == shown
    after = [column for column in shown if column.kind]
    assert table.apart == [column for column in table.columns if column.kind == "calibrated"] == after
    (base, *_) = csv.DictReader(io.StringIO(csv_text(table)))
    assert float(base["isotonic ECE"]) == pytest.approx(
        cell(table, "base", "ECE", "calibrated", "isotonic").mean, rel=1e-5
    )
    assert float(base["Platt log loss sd"]) > 0
    heads = next(line for line in markdown(table).splitlines() if line.startswith("| model"))
    assert heads.endswith("| Platt log loss | isotonic log loss | Platt ECE | isotonic ECE |")
    assert latex(table).count("Platt log loss") == 1
    assert "put right by validation impressions alone" in markdown(table)
    told = [read_json(results / f"shop/ctr/runs/base/seed-{seed}/metrics.json")["calibrated"] for seed in (1, 2)]
    mean = np.mean([one["Platt"]["metrics"]["log loss"] for one in told])
    assert cell(table, "base", "log loss", "calibrated", "Platt").mean == pytest.approx(mean)
    assert table.cell(table.entries[-1], shown[1]) is None  # the oracle
    rows = table.long_form().to_pylist()
    mine = [row for row in rows if (row["model"], row["kind"], row["group"]) == ("base", "calibrated", "isotonic")]
    assert {row["metric"] for row in mine} == {"AUC", "log loss", "ECE"}
    assert all(row["samples"] == 1200 for row in mine)


def test_results_of_before_calibration_are_shown_without_it(results, tmp_path):
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    files = [tree / "shop/ctr/runs" / run / "metrics.json" for run in RUNS]
    for path in files:
        write_json(path, {key: value for key, value in read_json(path).items() if key != "calibrated"})
    table = collect("shop", files, "base", SETTINGS)
    assert table.calibrated == table.apart == []
    assert "Platt" not in markdown(table) + csv_text(table) + latex(table)
    write(table, {kind: tree / f"tables/shop-ctr.{kind}" for kind in ("parquet", "csv", "md", "tex")})
    build(tree / "report/index.html", Report(title="x"), {"shop": RUNS}, {"task": "ctr"}, tree)
    assert "After calibration" not in (tree / "report/index.html").read_text()


def test_reconstructions_are_told_in_every_file_and_on_the_page(results, tmp_path):
    tree, said = tmp_path / "results", R2LEDSettings().remarks()
    assert said == ["a reconstruction from the abstract"]
    shutil.copytree(results, tree)
    path = tree / "shop/ctr/runs/same/seed-1/metrics.json"
    write_json(path, {**read_json(path), "remarks": said})
    table = collect("shop", [tree / "shop/ctr/runs" / run / "metrics.json" for run in RUNS], "base", SETTINGS)
    outputs = {kind: tree / f"tables/shop-ctr.{kind}" for kind in ("parquet", "csv", "md", "tex")}
    write(table, outputs)
    for kind in ("md", "tex"):
        assert f"same: {said[0]}." in outputs[kind].read_text()
    rows = list(csv.DictReader(io.StringIO(outputs["csv"].read_text())))
    assert {row["model"]: row["remarks"] for row in rows if row["remarks"]} == {"same": said[0]}
    long = read_table(outputs["parquet"], "metrics").to_pylist()
    assert {row["model"]: row["remarks"] for row in long if row["remarks"]} == {"same": said[0]}
    build(tree / "report/index.html", Report(title="x"), {"shop": RUNS}, {"task": "ctr"}, tree)
    page = (tree / "report/index.html").read_text()
    assert page.count(f'title="{said[0]}">see notes</span>') == 2  # of the metrics, and of those after calibration
    assert f"same: {said[0]}." in page


def test_the_page(results, table):
    output = results / "report/index.html"
    write(table, {kind: results / f"tables/shop-ctr.{kind}" for kind in ("parquet", "csv", "md", "tex")})
    build(output, Report(title="Clicks & more"), {"shop": RUNS}, {"task": "ctr"}, results)
    page = output.read_text()
    assert "Clicks &amp; more" in page
    assert "good_&lt;one&gt;" in page
    assert page.count("After calibration</h4>") == 1  # and a link to it in the contents
    assert page.count('<button type="button">Platt log loss</button>') == 1
    assert "<one>" not in page.replace("&lt;one&gt;", "")
    assert "://" not in page.replace("http://www.w3.org", "")
    names = {path.stem for path in (results / "report/plots/shop").glob("*.svg")}
    assert names == {"ctr-auc", "ctr-by-history", "ctr-by-popularity", "ctr-time", "ctr-calibration", "ctr-training"}


def test_a_bank_is_drawn_of_the_steps_that_tell_of_it(table):
    alone = [{"phase": "contrastive", "step": n, "loss": 1.0, "tokens": 9} for n in range(1, 5)]
    joint = [
        {"phase": "joint", "step": n, "cross-entropy": 0.5, "bank_cosine": 1 - 1 / n, "bank_coverage": n / 8}
        for n in range(2, 5)
    ]
    names = {plot.name: plot for plot in all_plots(table, {"base": [*alone, *joint], "same": joint[:1]})}
    assert "base ends at 0.750 (step 4), with 50% of events in the bank" in names["ctr-bank"].description
    assert "base ends at 0.5000 (step 4)" in names["ctr-training"].description
    assert "ctr-bank" not in {plot.name for plot in all_plots(table, {"base": alone})}


def test_where_a_curve_ends_says_over_which_steps(table):
    """Of 99 rows of five steps each the last point is the mean of three."""
    rows = [{"phase": "joint", "step": 5 * n, "cross-entropy": 1 / n} for n in range(1, 100)]
    (drawn,) = [plot for plot in all_plots(table, {"base": rows}) if plot.name == "ctr-training"]
    end = (1 / 97 + 1 / 98 + 1 / 99) / 3
    assert drawn.title == "Training: cross-entropy (first seeds)"
    assert drawn.description == f"base ends at {end:.4f} (steps 481 to 495)"
    assert f"base, steps 481 to 495: cross-entropy {end:.4f}" in drawn.svg
    assert f"base, steps 1 to 15: cross-entropy {(1 + 1 / 2 + 1 / 3) / 3:.4f}" in drawn.svg


def test_the_calibration_error_that_is_told_is_that_of_a_line(table):
    """Neither of a model that is left out of a full plot, nor of seeds that are not drawn."""
    few = next(plot for plot in all_plots(table, {}) if plot.name == "ctr-calibration")
    first = {entry.name: entry.runs[0].metrics["ECE"] for entry in table.entries}
    worst = max(first, key=first.__getitem__)
    said = f"the largest calibration error of the lines is that of {worst}, {first[worst]:.4f}"
    assert (few.title, few.description) == ("Calibration (first seeds)", said)
    assert f"{table.mean(next(e for e in table.entries if e.name == worst), 'ECE'):.4f}" not in said
    base = next(entry for entry in table.entries if entry.name == "base")
    off = replace(base.runs[0], metrics={**base.runs[0].metrics, "ECE": 0.9})
    many = [Entry(f"model{number}", "", base.runs[:1]) for number in range(9)]
    full = replace(table, entries=[*many, Entry("bad", "", (off,))], cells={})
    full.average()
    for name, auc in [("bad", 0.1), *((entry.name, 0.6) for entry in many)]:
        full.cells[name, Column("AUC")] = Cell(auc)
    drawn = next(plot for plot in all_plots(full, {}) if plot.name == "ctr-calibration")
    assert "bad" not in drawn.svg
    assert drawn.description.endswith(f"is that of model0, {first['base']:.4f}")


def test_runs_on_other_samples_are_refused(results, tmp_path):
    folder = tmp_path / "runs/other/seed-1"
    metrics = results / "shop/ctr/runs/base/seed-1"
    read = read_table(metrics / "predictions.parquet", "ctr_predictions")
    write_table(folder / "predictions.parquet", read.slice(1), "ctr_predictions")
    write_text(folder / "metrics.json", (metrics / "metrics.json").read_text().replace('"base"', '"other"'))
    with pytest.raises(ArtifactError, match="predicts other samples"):
        collect("shop", [metrics / "metrics.json", folder / "metrics.json"], "base", SETTINGS)
    with pytest.raises(ValueError, match=r"ctr.baseline: no run 'nobody'"):
        collect("shop", [metrics / "metrics.json"], "nobody", SETTINGS)
