"""The answer that the page opens with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reporting_world
from reporting_world import ORDER, metric_files
from safetensors.numpy import save_file
from scipy import stats

from tessera.evaluation.significance import holm
from tessera.reporting import plots
from tessera.reporting.page import Made, made_now
from tessera.reporting.ranking import RankingTable, collect
from tessera.reporting.ranking_comparison import compare
from tessera.reporting.ranking_page import build
from tessera.reporting.ranking_runs import user_metrics
from tessera.reporting.run_costs import parameters, run_cost
from tessera.reporting.runs import label
from tessera.reporting.tables import Column
from tessera.reporting.verdict import Verdict, costs_of, verdict
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.reporting import Report

MAIN = "NDCG@10"
TESTS = Significance(method="t_test", resamples=2000)


def made(results: Path, bounds: Iterable[str] = (), tests: Significance = TESTS) -> RankingTable:
    return collect("bazaar", metric_files(results), ORDER, Evaluation(), tests, bounds)


def judged(table: RankingTable, results: Path, main: str = MAIN) -> Verdict | None:
    return verdict(table, main, compare(table, main), costs_of(table, results))


def test_the_best_system_its_gain_and_its_cost(results: Path) -> None:
    table = made(results)
    said = judged(table, results)
    assert said is not None
    assert said.headline == "semantic/sasrec is the best system."
    by_name = {entry.name: user_metrics(entry, table.evaluation) for entry in table.entries}
    ours, base = by_name["semantic/sasrec"], by_name["id/sasrec"]
    facts = {name: (number, small) for name, number, small in said.facts}
    gain = ours.values[MAIN].mean() / base.values[MAIN].mean() - 1
    assert facts["Over id/sasrec"][0] == f"{gain:+.1%}"
    tail = ~ours.head
    assert facts["Tail"][0] == f"{ours.values[MAIN][tail].mean() / base.values[MAIN][tail].mean() - 1:+.1%}"
    assert facts[MAIN][0] == f"{ours.values[MAIN].mean():.4f}"
    low, high = (float(end) for end in facts[MAIN][1].split(" to "))
    assert low < ours.values[MAIN].mean() < high
    assert said.summary.startswith(f"bazaar: semantic/sasrec has the best NDCG@10, {facts[MAIN][0]}, {gain:+.1%} over")
    # the oracle is a bound
    assert said.sentences[-1].startswith("Bounds that know the hidden truth, and do not compete: oracle (0.")


def test_p_is_of_all_pairs_of_competitors(results: Path) -> None:
    table = made(results)
    compared = compare(table, MAIN)
    assert compared is not None
    assert [entry.system for entry in compared.ranked] == ["semantic", "id", "id", "popular"]
    values = [user_metrics(entry, table.evaluation).values[MAIN] for entry in compared.ranked]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    expected = holm(np.array([stats.ttest_rel(values[i], values[j]).pvalue for i, j in pairs]))
    assert [compared.p[pair] for pair in pairs] == pytest.approx(expected.tolist())
    assert compared.beaten(0) == sum(p <= 0.05 for p, (i, _) in zip(expected, pairs, strict=True) if i == 0)
    assert compared.lost(0) == 0
    assert set(compared.intervals) == {entry.name for entry in table.entries}


def test_no_p_below_what_resamples_tell(results: Path) -> None:
    said = judged(made(results, tests=Significance(resamples=500)), results)
    assert said is not None
    # 6 pairs, 501 outcomes: the least is 0.012, at most three digits, rounded up
    assert "p\u00a0≤\u00a00.012" in {name: small for name, _, small in said.facts}["Over id/sasrec"]


def test_a_bound_is_never_the_best(results: Path) -> None:
    said = judged(made(results, bounds=["semantic"]), results)
    assert said is not None
    assert said.headline == "No system is better than the baseline, id/sasrec."
    assert "semantic/sasrec (0." in said.sentences[-1]
    assert "cannot be told apart from id/gru4rec" in said.sentences[0]
    assert "Over" not in " ".join(name for name, _, _ in said.facts)
    assert judged(made(results, bounds=["semantic", "id", "popular"]), results) is None


def test_the_best_that_is_not_told_apart(results: Path) -> None:
    table = made(results, bounds=["semantic"], tests=replace_baseline("id/gru4rec"))
    said = judged(table, results)
    assert said is not None
    assert said.headline == "id/sasrec has the best NDCG@10, but is not told apart from the baseline."


def replace_baseline(name: str) -> Significance:
    return TESTS.model_copy(update={"baseline": name})


def test_a_metric_that_is_no_mean_over_users(results: Path) -> None:
    table = made(results)
    assert compare(table, "coverage@10") is None
    said = judged(table, results, "coverage@10")
    assert said is not None
    assert "is the best system" in said.headline
    assert said.method == ""


def test_costs_are_those_of_training(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    table = made(tree)
    entry = next(entry for entry in table.entries if entry.name == "id/sasrec")
    for run in entry.runs:
        weights = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}
        save_file(weights, run.path.with_name("model.safetensors"), {"about": "x"})
    assert parameters(entry.runs[0].path.with_name("model.safetensors")) == 17
    cost = run_cost(tree / "benchmarks" / "train", "bazaar", entry)
    # two of three seeds have benchmark files: 31 s and 29 s, 640 and 660.5 MiB
    assert (cost.seconds, cost.memory, cost.parameters) == (30.0, 650.25, 17)
    assert cost.text == "30 s, 17 parameters, 650 MiB of memory"
    others = run_cost(
        tree / "benchmarks" / "train", "bazaar", next(entry for entry in table.entries if entry.system == "popular")
    )
    assert others.text == ""


def test_what_is_made_of_runs_costs_what_they_cost(results: Path, tmp_path: Path) -> None:
    """Its own job and those of its members: seconds of all, the largest memory; unknown where one is not known."""
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    trained = tree / "benchmarks" / "train"
    entry = next(entry for entry in made(tree).entries if entry.name == "id/sasrec")
    first, second, third = entry.runs
    of_two = replace(first, members=(f"id/sasrec/seed-{second.seed}",))
    alone = replace(entry, runs=(of_two,))
    assert run_cost(trained, "bazaar", alone).text == "1 min 00 s, 660 MiB of memory"
    of_unknown = replace(first, members=(f"id/sasrec/seed-{third.seed}",))
    assert run_cost(trained, "bazaar", replace(entry, runs=(of_unknown,))).text == ""


def test_the_page_says_what_made_it(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    told = replace(made_now(""), command="snakemake --config x=https://ann:s3cret@host/<b>")
    page = tree / "report" / "index.html"
    build(page, Report(), {"bazaar": reporting_world.run_paths(tree)}, {}, tree, made=told)
    text = page.read_text()
    assert told.date in text
    assert "s3cret" not in text
    assert "x=https://***@host/&lt;b&gt;" in text
    assert '<meta property="og:description" content="bazaar: semantic/sasrec has the best NDCG@10' in text
    assert "<title>Tessera report: bazaar</title>" in text
    assert Made().lines() == []


def test_groups_of_few_are_drawn_together(results: Path) -> None:
    assert plots.merged({"1-5": 40, "6-10": 5, "11-20": 90, ">20": 3}) == [["1-5"], ["6-10", "11-20", ">20"]]
    assert plots.merged({"1": 2, "2": 3}) == [["1", "2"]]
    assert plots.merged({}) == []
    table = made(results)
    drawn = plots.by_group(table, MAIN, "history", "history length", "items", "x")
    assert drawn is not None
    counts = {
        c.group: cell.count or 0 for (n, c), cell in table.cells.items() if n == "id/sasrec" and c.kind == "history"
    }
    parts = plots.merged(counts)
    assert any(len(part) > 1 for part in parts)
    # 80 users, most of them with a target of the last bin: one group is no line
    assert plots.by_group(table, MAIN, "popularity_bins", "popularity", "bin", "x") is None
    for part in parts:
        cells = [table.cells["id/sasrec", Column(MAIN, "history", group)] for group in part]
        users = sum(counts[group] for group in part)
        mean = sum(cell.mean * (cell.count or 0) for cell in cells) / users
        assert f"id/sasrec, items {', '.join(part)}: {MAIN} {mean:.4f}" in drawn.description
        assert f"({users} users)" in drawn.description


def test_dots_have_the_intervals_of_users(results: Path) -> None:
    table = made(results)
    compared = compare(table, MAIN)
    assert compared is not None
    drawn = plots.by_run(table, MAIN, compared.intervals, compared.outside)
    assert drawn is not None
    low, high = compared.intervals["id/sasrec"]
    assert f"{low:.4f} to {high:.4f}" in drawn.description
    assert drawn.description.startswith("semantic/sasrec: ")
    assert drawn.description.rpartition("; ")[2].startswith("oracle: ")
    assert "with 95 % intervals" in drawn.title
    wide = plots.by_run(table, MAIN, compared.intervals, 0.1)
    assert wide is not None
    assert "with 90 % intervals" in wide.title


def test_quality_against_cost(results: Path) -> None:
    table = made(results)
    costs = {
        entry.name: {"seconds": None, "parameters": 10.0 * n, "memory": 1.0} for n, entry in enumerate(table.entries)
    }
    assert plots.by_cost(table, MAIN, costs, "seconds") is None
    drawn = plots.by_cost(table, MAIN, costs, "parameters")
    assert drawn is not None
    # one is free, and has no place on a logarithmic axis
    assert drawn.description.count(";") == 3
    assert drawn.svg.count("semantic/sasrec") >= 2


def test_the_matrix_of_wins(results: Path) -> None:
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    matrix = re.search(r'<table class="wins">.*?</table>', page, re.DOTALL)
    assert matrix is not None
    rows = re.findall(r"<tr><th scope=\"row\">([^<]+)</th><td>(\d+)</td><td>(\d+)</td>", matrix[0])
    compared = compare(made(results, tests=Significance(resamples=1000)), MAIN)
    assert compared is not None
    assert rows == [
        (label(entry), str(compared.beaten(n)), str(compared.lost(n))) for n, entry in enumerate(compared.ranked)
    ]
    assert matrix[0].count('class="win"') == matrix[0].count('class="loss"') == sum(int(won) for _, won, _ in rows) > 0
