"""Metric tables: long form, significance, best, formats."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from reporting_world import ORDER, metric_files
from scipy import stats

from tessera.artifacts.tables import ArtifactError, read_table
from tessera.reporting import formats
from tessera.reporting.formats import write
from tessera.reporting.ranking import RankingTable, collect
from tessera.reporting.ranking_runs import entries, user_metrics
from tessera.reporting.runs import Entry, baselines_of, opponent
from tessera.reporting.tables import Column
from tessera.settings.evaluation import Evaluation, Significance


@pytest.fixture(scope="module")
def table(results: Path) -> RankingTable:
    return collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(resamples=1000))


def test_who_knows_the_truth_is_a_bound(results: Path, table: RankingTable) -> None:
    """Never bold, never first, never the baseline unless named; and the tests of others stay what they were."""
    truth = ("semantic", "popular")
    bound = collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(resamples=1000), truth)
    assert [entry.system for entry in bound.entries] == ["id", "id", "popular", "semantic", "oracle"]
    assert {name.partition("/")[0] for (name, _), cell in bound.cells.items() if cell.best} == {"id"}
    assert [entry.system for entry in bound.ranked("NDCG@10")] == ["id", "id", "oracle", "semantic", "popular"]
    assert any(note.startswith("popular, semantic: made of the hidden truth") for note in bound.notes())
    assert not any("hidden truth" in note for note in table.notes())
    column = Column("NDCG@10")
    assert bound.cells["id/gru4rec", column].p_holm == table.cells["id/gru4rec", column].p_holm
    only = collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(resamples=100), ("id", "popular"))
    assert [entry.name for entry in only.baselines] == ["semantic/sasrec"]
    named = Significance(resamples=100, baseline="semantic")
    assert collect("bazaar", metric_files(results), ORDER, Evaluation(), named, truth).baselines[0].system == "semantic"


def test_a_table_of_bounds_alone(results: Path) -> None:
    systems = {"id", "popular", "semantic"}
    bound = collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(), systems)
    assert bound.baseline is None
    assert not any(cell.best for cell in bound.cells.values())


def copy(results: Path, tmp_path: Path) -> Path:
    target = tmp_path / "results"
    shutil.copytree(results / "bazaar" / "runs", target / "bazaar" / "runs")
    return target


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_rows_follow_the_order_and_the_oracle_is_last(table: RankingTable) -> None:
    assert [entry.name for entry in table.entries] == [*ORDER, "oracle/oracle"]


def test_mean_and_sd_over_seeds(table: RankingTable, results: Path) -> None:
    files = [results / f"bazaar/runs/id/sasrec/seed-{seed}/metrics.json" for seed in (1, 2, 3)]
    values = [json.loads(file.read_text())["metrics"]["NDCG@10"] for file in files]
    cell = table.cells["id/sasrec", Column("NDCG@10")]
    assert cell.mean == pytest.approx(np.mean(values))
    assert cell.sd == pytest.approx(np.std(values, ddof=1))
    assert table.cells["popular/popular", Column("NDCG@10")].sd is None


def test_best_excludes_the_oracle(table: RankingTable) -> None:
    column = Column("NDCG@10")
    best = {entry.name for entry in table.entries if table.cells[entry.name, column].best}
    assert best == {"semantic/sasrec"}
    assert table.cells["oracle/oracle", column].mean > table.cells["semantic/sasrec", column].mean


def test_the_baseline_is_the_first_trained_run_unless_named(results: Path) -> None:
    found = entries(metric_files(results), ORDER)
    assert [entry.name for entry in baselines_of(found, None)] == ["id/sasrec"]
    with pytest.raises(ValueError, match=r"no run 'id/sasrek'; did you mean 'id/sasrec'"):
        baselines_of(found, "id/sasrek")


def test_a_system_as_baseline_meets_every_run_under_its_own_recommender() -> None:
    names = ["popular/popular", "id/sasrec", "id/gru4rec", "text/gru4rec", "text/bert4rec", "oracle/oracle"]
    found = [Entry(*name.split("/"), ()) for name in names]
    bases = baselines_of(found, "id")
    assert [base.name for base in bases] == ["id/sasrec", "id/gru4rec"]
    met = {entry.name: base.name for entry in found if (base := opponent(entry, bases))}
    assert met == {"popular/popular": "id/sasrec", "text/gru4rec": "id/gru4rec", "text/bert4rec": "id/sasrec"}


def test_a_system_as_baseline_is_told_in_the_notes(results: Path) -> None:
    found = collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(method="t_test", baseline="id"))
    bases = [entry.name for entry in found.entries if found.is_baseline(entry)]
    assert bases == [entry.name for entry in found.entries if entry.system == "id"]
    assert any(
        "than id under the same recommender (popular: than id/sasrec): paired t-test" in note for note in found.notes()
    ), "nobody is compared with a row that is not named"


def test_significance_is_the_paired_test_on_seed_means(results: Path) -> None:
    found = collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(method="t_test"))
    values = {}
    for entry in found.entries:
        if entry.name in ("id/sasrec", "semantic/sasrec"):
            values[entry.name] = user_metrics(entry, Evaluation()).values["NDCG@10"]
    cell = found.cells["semantic/sasrec", Column("NDCG@10")]
    assert cell.p == pytest.approx(stats.ttest_rel(values["semantic/sasrec"], values["id/sasrec"]).pvalue)
    assert cell.p_holm is not None
    assert cell.p_holm >= cell.p
    # 3 rivals x (Hit and NDCG at three K, MRR, head, tail)
    assert found.comparisons == 3 * 9
    assert found.cells["popular/popular", Column("MRR")].significant == "down"
    assert cell.significant == "up"


def test_head_and_tail_users_match_the_judge(results: Path) -> None:
    for entry in entries(metric_files(results), ORDER):
        found = user_metrics(entry, Evaluation())
        for group, members in (("head", found.head), ("tail", ~found.head)):
            mean = found.values["NDCG@10"][members].mean()
            assert mean == pytest.approx(entry.values("NDCG@10", "popularity", group).mean(), abs=1e-9)


@pytest.mark.parametrize("policy", ["miss", "drop", "rank"])
def test_every_cold_policy_agrees_with_the_judge(policy: str, tmp_path: Path) -> None:
    import reporting_world

    settings = Evaluation.model_validate({"cold_targets": policy})
    tree = reporting_world.make(tmp_path, settings=settings)
    found = collect("bazaar", metric_files(tree), ORDER, settings, Significance(resamples=100))
    assert found.comparisons == 27


def test_long_form_has_groups_and_history(results: Path, table: RankingTable, tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"bazaar.{kind}" for kind in ("parquet", "csv", "md", "tex")}
    write(table, paths)
    long = read_table(paths["parquet"], "metrics")
    assert {"", "popularity", "popularity_bins", "history", "cold"} == set(long.column("kind").to_pylist())
    assert pq.read_schema(paths["parquet"]).names[0] == "dataset"
    mine = long.filter(
        (pq.read_table(paths["parquet"])["system"].to_numpy(zero_copy_only=False) == "semantic")
        & (long["metric"].to_numpy(zero_copy_only=False) == "NDCG@10")
        & (long["kind"].to_numpy(zero_copy_only=False) == "")
    )
    assert mine.num_rows == 1
    assert mine["significant"][0].as_py() == "up"
    again = {kind: tmp_path / f"again.{kind}" for kind in paths}
    write(collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(resamples=1000)), again)
    for kind in paths:
        assert paths[kind].read_bytes() == again[kind].read_bytes()


def test_csv_numbers_are_the_table(table: RankingTable) -> None:
    rows = list(csv.DictReader(io.StringIO(formats.csv_text(table))))
    assert len(rows) == len(table.entries)
    assert float(rows[1]["NDCG@10"]) == pytest.approx(table.cells["id/sasrec", Column("NDCG@10")].mean, rel=1e-5)
    assert rows[0]["NDCG@10 sd"] == ""
    assert "tail NDCG@10 p" in rows[0]


def test_markdown(table: RankingTable) -> None:
    text = formats.markdown(table)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert re.search(r"semantic \| sasrec .*\*\*0\.\d{4}\*\* ± 0\.\d{4} \\\*↑", text)
    assert "Holm" in text
    assert "cold targets" in text
    assert "seeds 1, 2, 3" in text


def test_latex_is_balanced_and_escaped(table: RankingTable) -> None:
    text = formats.latex(table)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert r"\toprule" in text
    assert r"popular & popular" in text
    assert not re.search(r"(?<!\\)%(?! needs|\n)", text)
    assert formats.escape_latex("a_b 50% & <x> #1 {}") == r"a\_b 50\% \& \textless{}x\textgreater{} \#1 \{\}"


def test_markdown_escapes() -> None:
    assert formats.escape_markdown("a|b <i> *x*\n`y`") == r"a\|b \<i\> \*x\* \`y\`"


def test_sampled_protocol_is_in_every_header_of_what_it_ranks(results: Path, tmp_path: Path) -> None:
    tree = copy(results, tmp_path)
    for path in metric_files(tree):
        edit(path, protocol="100 sampled")
    found = collect("bazaar", metric_files(tree), ORDER, Evaluation(), Significance(resamples=100))
    assert "NDCG@10 (100 sampled)" in formats.markdown(found)
    assert "NDCG@10 (100 sampled)" in formats.csv_text(found).splitlines()[0]
    assert found.header(Column("coverage@10")) == "coverage@10"  # of lists, which are of the whole catalogue


def test_mixed_protocols_are_refused(results: Path, tmp_path: Path) -> None:
    tree = copy(results, tmp_path)
    edit(tree / "bazaar/runs/id/sasrec/seed-2/metrics.json", protocol="100 sampled")
    with pytest.raises(ArtifactError, match="never shown in one table"):
        collect("bazaar", metric_files(tree), ORDER, Evaluation(), Significance())


def test_metrics_that_do_not_fit_their_ranks_are_refused(results: Path, tmp_path: Path) -> None:
    tree = copy(results, tmp_path)
    shutil.copy(
        tree / "bazaar/runs/semantic/sasrec/seed-1/evaluation.parquet",
        tree / "bazaar/runs/id/sasrec/seed-1/evaluation.parquet",
    )
    with pytest.raises(ArtifactError, match=r"id/sasrec/seed-1/metrics.json: Hit@5 is .* evaluate the run again"):
        collect("bazaar", metric_files(tree), ORDER, Evaluation(), Significance())


def test_other_users_are_refused(results: Path, tmp_path: Path) -> None:
    from tessera.artifacts.tables import write_table
    from tessera.evaluation.judge import summarize

    tree = copy(results, tmp_path)
    import reporting_world

    path = tree / "bazaar/runs/semantic/sasrec/seed-2/evaluation.parquet"
    fewer = read_table(path, "evaluation").sort_by("user").slice(1)
    write_table(path, fewer, "evaluation")
    described = {"system": "semantic", "recommender": "sasrec", "seed": 2}
    summary = summarize(fewer, Evaluation(), reporting_world.popularity(), "full", **described)
    path.with_name("metrics.json").write_text(json.dumps(summary))
    with pytest.raises(ArtifactError, match=r"judges 79 users, .* judges 80, the first that only one has is user 1;"):
        collect("bazaar", metric_files(tree), ORDER, Evaluation(), Significance(resamples=100))


def test_missing_and_broken_files(tmp_path: Path, results: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        collect("x", [tmp_path / "metrics.json"], [], Evaluation(), Significance())
    with pytest.raises(ValueError, match="no run to put into a table"):
        collect("x", [], [], Evaluation(), Significance())
    (tmp_path / "metrics.json").write_text('{"system": "a", "protocl": "full", "recommender": "b", "seed": 1}')
    with pytest.raises(ArtifactError, match="lacks the key 'protocol'; did you mean 'protocl'"):
        collect("x", [tmp_path / "metrics.json"], [], Evaluation(), Significance())


def test_one_run_alone_is_the_baseline_without_stars(results: Path) -> None:
    files = [p for p in metric_files(results) if "/id/sasrec/seed-1/" in str(p)]
    found = collect("bazaar", files, [], Evaluation(), Significance())
    assert found.comparisons == 0
    assert "one seed" in formats.markdown(found)
    assert "↑" not in formats.markdown(found)
