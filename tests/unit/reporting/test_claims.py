"""Claims: verdicts, intervals and what could have been seen, against scipy and against what was built in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.stats
from reporting_world import EVIL, ORDER, metric_files, representation_files, run_paths

from tessera.artifacts.files import read_json
from tessera.evaluation.significance import bootstrap_interval, detectable, holm, least_p, randomization, told_p
from tessera.plan.graph import Plan
from tessera.reporting import claims
from tessera.reporting.claims import FAILS, HOLDS, UNDECIDED, verdict
from tessera.reporting.ranking_claims import judge_claims
from tessera.reporting.ranking_page import build
from tessera.settings.base import ConfigError
from tessera.settings.claims import Claim, all_rows, rows_of
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.reporting import Report

RNG = np.random.default_rng(4)


def test_the_interval_is_that_of_scipy() -> None:
    differences = RNG.exponential(0.3, (400, 2)) - 0.2
    low, high = bootstrap_interval(differences, 0.05, 4000, seed=1)
    for column in range(2):
        reference = scipy.stats.bootstrap(
            (differences[:, column],), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
        ).confidence_interval
        np.testing.assert_allclose([low[column], high[column]], reference, atol=2.5e-3)


def test_the_smallest_effect_is_seen_four_times_in_five() -> None:
    users, trials = 300, 400
    noise = RNG.standard_normal((users, trials)) * 0.4
    effect = float(detectable(noise, 0.05).mean())
    p = randomization(noise + effect, 999, seed=2)
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=0.06)
    one = noise[:, 0]
    expected = (scipy.stats.norm.ppf(1 - 0.025) + scipy.stats.norm.ppf(0.8)) * scipy.stats.sem(one)
    assert detectable(one, 0.05)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p", "least", "told"),
    [
        (0.0143986, 0.0143986, "p ≤ 0.0144"), (0.0144856, 0.0144856, "p ≤ 0.0145"), (0.001, 0.0144, "p ≤ 0.0144"),
        (0.0312, 0.0144, "p = 0.0312"), (0.014401, 0.0144, "p = 0.0144"), (1.0, 0.0144, "p = 1"),
        (1e-30, 0.0, "p = 1e-30"), (1 / 10_001, 1 / 10_001, "p ≤ 0.0001"), (0.0, 0.0, "p < 1e-300"),
        (0.05004, 0.0, "p = 0.0501"), (0.0250001, 0.0, "p = 0.0251"),
        (0.04996, 0.0, "p = 0.05"), (0.05, 0.0, "p = 0.05"),
    ],
)  # fmt: skip
def test_no_p_is_told_below_what_the_resamples_can_tell(p: float, least: float, told: str) -> None:
    assert told_p(p, least) == told
    assert float(told.split()[-1]) >= least * (1 - 1e-4)


def test_the_least_p_is_that_of_a_difference_no_resample_reaches() -> None:
    differences = np.ones((80, 3)) + RNG.random((80, 3))
    settings = Significance(resamples=500)
    corrected = holm(randomization(differences, 500))
    assert corrected.tolist() == pytest.approx([least_p(settings, 3, 80)] * 3)
    assert least_p(Significance(method="t_test"), 3, 80) == 0
    assert least_p(settings, 3, 8) == 0  # all patterns of eight signs are counted


@pytest.mark.parametrize(
    ("difference", "p", "at_least", "expected"),
    [
        (0.02, 0.01, 0.0, HOLDS), (0.02, 0.06, 0.0, UNDECIDED), (-0.02, 0.01, 0.0, FAILS),
        (-0.02, 0.09, 0.0, UNDECIDED), (0.02, 0.05, 0.04, FAILS), (0.02, 0.2, 0.04, UNDECIDED),
        (-0.01, 0.6, 0.0, UNDECIDED),
        (-0.01, 0.01, -0.03, HOLDS), (None, 1.0, 0.0, UNDECIDED), (0.0, 1.0, 0.0, UNDECIDED),
    ],
)  # fmt: skip
def test_verdicts(difference: Any, p: float, at_least: float, expected: str) -> None:
    assert verdict(difference, p, at_least, 0.05) == expected


def test_of_many_claims_without_an_effect_few_families_have_any_verdict() -> None:
    level, families, claims_each = 0.05, 200, 10
    rng = np.random.default_rng(8)
    decided = 0
    for _ in range(families):
        differences = rng.standard_normal((60, claims_each))
        corrected = holm(scipy.stats.ttest_1samp(differences, 0).pvalue)
        verdicts = [verdict(mean, p, 0.0, level) for mean, p in zip(differences.mean(0), corrected, strict=True)]
        decided += any(one != UNDECIDED for one in verdicts)
    # the rule of the uncorrected interval alone would say "does not hold" in about 1 - 0.975^10 = 22 % of them
    assert decided / families <= level + 3 * np.sqrt(level * (1 - level) / families)


def test_claims_are_tested_on_the_runs(results: Path, tmp_path: Path) -> None:
    runs = metric_files(results)
    said = [
        Claim(name="semantic wins", better="semantic", than="id/sasrec"),
        Claim(name="popular wins", better="popular", than="id/sasrec"),
        Claim(name="by far", better="semantic", than="id/sasrec", at_least=0.9),
        Claim(name="tail", better="semantic/sasrec", than="id/gru4rec", metric="tail Hit@5"),
        Claim(name="not much worse", better="id/gru4rec", than="id/sasrec", at_least=-0.5),
    ]
    rule, judge = Significance(resamples=2000), Evaluation()
    table = judge_claims("bazaar", runs, ORDER, said, judge, rule)
    by_name = {claim.name: claim for claim in table.claims}
    assert [by_name[name].verdict for name in ("semantic wins", "popular wins", "by far", "not much worse")] == [
        HOLDS, FAILS, FAILS, HOLDS,
    ]  # fmt: skip
    one = by_name["semantic wins"]
    means = [
        np.mean([read_json(path)["metrics"]["NDCG@10"] for path in runs if f"{row}/seed" in str(path)])
        for row in ("semantic/sasrec", "id/sasrec")
    ]
    assert one.difference == pytest.approx(means[0] - means[1])
    assert (one.better_seeds, one.than_seeds) == (3, 3)
    assert one.low < one.difference < one.high
    assert one.p_holm == pytest.approx(5 / 2001)
    assert one.least_p == pytest.approx(5 / 2001)
    assert one.told_p == "p ≤ 0.0025"
    tail = by_name["tail"]
    assert 0 < tail.users < one.users
    groups = [read_json(path)["groups"]["popularity"]["tail"] for path in runs if "semantic/sasrec/seed" in str(path)]
    assert tail.users == groups[0]["users"]
    assert tail.better_mean == pytest.approx(np.mean([group["metrics"]["Hit@5"] for group in groups]))
    paths = {ending: tmp_path / f"claims.{ending}" for ending in ("parquet", "csv", "md")}
    claims.write(table, [run.with_name("evaluation.parquet") for run in runs], paths)
    assert claims.read(paths["parquet"]) == table
    text = paths["md"].read_text()
    assert "| semantic wins | holds | semantic/sasrec is better than id/sasrec in NDCG@10 |" in text
    assert "5 claims" in text
    assert "p ≤ 0.0025" in text
    rows = pl.read_csv(paths["csv"])
    assert rows["verdict"].to_list() == [claim.verdict for claim in table.claims]


def test_the_page_shows_claims_as_texts(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    runs = metric_files(tree)
    said = [
        Claim(name=EVIL, better="semantic", than="id/sasrec"),
        Claim(name="popular wins", better="popular", than="id/sasrec", at_least=0.01),
    ]
    table = judge_claims("bazaar", runs, ORDER, said, Evaluation(), Significance(resamples=200))
    files = {ending: tree / "tables" / f"bazaar-claims.{ending}" for ending in ("parquet", "csv", "md")}
    claims.write(table, [run.with_name("evaluation.parquet") for run in runs], files)
    page = tree / "report" / "index.html"
    config = {"datasets": {"bazaar": {"source": "bazaar"}}, "claims": [one.model_dump() for one in said]}
    build(page, Report(), {"bazaar": run_paths(tree)}, config, tree, **representation_files(tree))
    text = page.read_text()
    assert "<strong>does not hold</strong>" in text
    assert "popular/popular is better than id/sasrec by at least 0.01 in NDCG@10" in text
    assert "p ≤ 0.0" in text
    assert EVIL not in text
    shown = files["md"].read_text()
    assert "<script" not in shown.replace("\\<", "")


BASE: dict[str, Any] = {
    "datasets": {"shop": {"source": "bazaar"}},
    "experiment": {"datasets": ["shop"], "systems": ["popular", "id"], "backbones": ["sasrec", "gru4rec"]},
}


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ({"better": "id/sasre", "than": "popular"}, r"claims.0.better: unknown name 'id/sasre'; did you mean 'id/sasr"),
        ({"better": "id", "than": "popular"}, r"claims.0.better: 'id' has several rows: id/sasrec, id/gru4rec"),
        ({"better": "id/sasrec", "than": "id/sasrec"}, r"claims.0.than: 'id/sasrec' is compared with itself"),
        ({"better": "popular", "than": "popular/popular"}, r"claims.0.than: .* is compared with itself"),
        ({"better": "id/sasrec", "than": "popular", "metric": "tail NDCG@11"}, r"did you mean 'tail NDCG@10'"),
        ({"better": "id/sasrec", "than": "popular", "at_leas": 1}, r"did you mean 'at_least'"),
    ],
)
def test_claims_that_cannot_be_tested_are_refused(claim: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load({**BASE, "claims": [{"name": "a", **claim}]})


def test_a_claim_has_a_name_of_its_own() -> None:
    one = {"name": "a", "better": "id/sasrec", "than": "popular"}
    with pytest.raises(ConfigError, match="two claims have the name 'a'"):
        load({**BASE, "claims": [one, {**one, "metric": "MRR"}]})


@pytest.mark.parametrize(
    "system",
    [
        *(
            {"recommender": kind, key: "text"}
            for kind, key in (("pad", "table"), ("findrec", "text"), ("tpad", "text"), ("i3_mrec", "text"))
        ),
        {"recommender": "cider", "items": {"table": "text"}},
    ],
)
def test_rows_of_every_kind_of_system_under_backbones_can_be_claimed(system: dict[str, Any]) -> None:
    config = {
        **BASE,
        "tables": {"text": {"recipe": "latent", "view": "text"}},
        "systems": {"mine": system},
        "experiment": {**BASE["experiment"], "systems": ["popular", "id", "mine"]},
        "claims": [{"name": "a", "better": "mine/gru4rec", "than": "id/gru4rec"}],
    }
    rows = {f"{run.system}/{run.recommender}" for run in Plan(load(config)).runs}
    assert set(all_rows(load(config))) == rows
    assert rows_of(load(config), "mine") == ["mine/sasrec", "mine/gru4rec"]
