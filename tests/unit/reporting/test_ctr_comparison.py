"""Click-through models against each other: every pair, the verdict, and claims."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click_world import RUNS, SETTINGS, make
from sklearn.metrics import roc_auc_score

from tessera.artifacts.files import read_json, write_json, write_text
from tessera.artifacts.tables import read_table, write_table
from tessera.evaluation import clicks
from tessera.evaluation.significance import holm
from tessera.reporting import claims
from tessera.reporting.claims import FAILS, HOLDS, UNDECIDED
from tessera.reporting.ctr import TESTED, ClickTable, collect
from tessera.reporting.ctr import load as load_table
from tessera.reporting.ctr_claims import judge_claims
from tessera.reporting.ctr_comparison import compare
from tessera.reporting.ctr_page import build
from tessera.reporting.formats import write
from tessera.reporting.tables import Column
from tessera.reporting.verdict import Verdict, costs_of, verdict
from tessera.settings.base import ConfigError
from tessera.settings.claims import OF_CLICKS, Claim
from tessera.settings.config import load
from tessera.settings.ctr import CTREvaluation
from tessera.settings.reporting import Report

GOOD = "good_<one>"
COLUMN = Column("AUC")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("clicks") / "results")


def metric_files(results: Path) -> list[Path]:
    return [results / "shop/ctr/runs" / run / "metrics.json" for run in RUNS]


def collected(results: Path, against: str = "base", evaluation: CTREvaluation = SETTINGS, **more: Any) -> ClickTable:
    return collect("shop", metric_files(results), against, evaluation, **more)


def said(table: ClickTable, results: Path) -> Verdict | None:
    return verdict(table, "AUC", compare(table), costs_of(table, results))


def predictions(results: Path, run: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = read_table(results / f"shop/ctr/runs/{run}/predictions.parquet", "ctr_predictions")
    users, labels, predicted = (table.column(name).to_numpy() for name in ("user", "label", "probability"))
    return users, labels, predicted


def drawn_auc(results: Path, model: str, resamples: int) -> np.ndarray:
    """(resamples,) AUC of resamples of users by scikit-learn, the mean over seeds."""
    seeds = []
    for run in (run for run in RUNS if run.startswith(f"{model}/")):
        users, labels, predicted = predictions(results, run)
        counts = np.concatenate(list(clicks.user_draws(60, resamples, SETTINGS.seed)))
        weights = counts[:, np.unique(users, return_inverse=True)[1]]
        seeds.append([roc_auc_score(labels, predicted, sample_weight=row) for row in weights])
    return np.mean(seeds, axis=0)


def test_p_is_of_all_pairs_of_competitors_on_the_same_resamples(results: Path) -> None:
    table = collected(results)
    compared = compare(table)
    assert compared is not None
    assert [entry.name for entry in compared.ranked] == [entry.name for entry in table.ranked("AUC")][:3]
    assert compared.ranked[0].name == GOOD
    draws = [drawn_auc(results, entry.name, 200) for entry in compared.ranked]
    means = [table.mean(entry, "AUC") for entry in compared.ranked]
    expected = []
    for one, other in ((0, 1), (0, 2), (1, 2)):
        centred = draws[one] - draws[other] - (means[one] - means[other])
        expected.append((1 + (np.abs(centred) >= abs(means[one] - means[other])).sum()) / 201)
    corrected = holm(np.array(expected))
    assert [compared.p[pair] for pair in ((0, 1), (0, 2), (1, 2))] == pytest.approx(corrected.tolist())
    assert np.array_equal(compared.p, compared.p.T)
    assert compared.least == pytest.approx(3 / 201)
    assert compared.difference(0, 1) == pytest.approx(means[0] - means[1])
    assert (compared.beaten(0), compared.lost(0)) == (2, 0)
    assert compared.intervals["oracle"] == (table.cells["oracle", COLUMN].low, table.cells["oracle", COLUMN].high)
    gain = compared.gains(0, 1)[0]
    low, high = np.quantile(draws[0] - draws[1], [0.025, 0.975])
    assert (gain.name, gain.number, gain.interval) == ("", f"{means[0] - means[1]:+.4f}", f"{low:+.4f} to {high:+.4f}")


def test_a_written_table_keeps_its_pairs(results: Path, tmp_path: Path) -> None:
    table = collected(results)
    paths = {kind: tmp_path / f"t.{kind}" for kind in ("parquet", "csv", "md", "tex")}
    write(table, paths)
    again = load_table(paths["parquet"], metric_files(results))
    assert again.pairs == table.pairs
    assert said(again, results) == said(table, results)


def test_the_first_resamples_are_the_same_however_many_follow(results: Path) -> None:
    """So the table and its pairs may take as many as each needs of one series."""
    users, labels, predicted = predictions(results, "base/seed-1")
    few, many = (clicks.resampled(users, labels, predicted, count, 3) for count in (240, 999))
    for metric in TESTED:
        np.testing.assert_allclose(few[metric], many[metric][:240], rtol=1e-12)
    table = collected(results)
    # 6 comparisons at 0.05 need 240, 3 pairs the 200 of the settings
    drawn = drawn_auc(results, "base", 240)
    cell = table.cells["base", COLUMN]
    assert (cell.low, cell.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_the_verdict_of_clicks(results: Path) -> None:
    table = collected(results)
    card = said(table, results)
    assert card is not None
    assert card.headline == f"{GOOD} is the best model."
    facts = {name: (number, small) for name, number, small in card.facts}
    cell = table.cells[GOOD, COLUMN]
    assert facts["AUC"] == (f"{cell.mean:.4f}", f"{cell.low:.4f} to {cell.high:.4f}")
    number, small = facts["Over base"]
    assert number == f"{cell.difference:+.4f}"
    assert small.endswith("p\u00a0≤\u00a00.015")  # 3 pairs, 201 outcomes
    assert facts["Log loss over base (lower is better)"][0].startswith("-")
    assert facts["GAUC over base"][0].startswith("+")
    assert card.sentences[0] == f"{GOOD} is better than all others."
    assert card.sentences[1].startswith("Bounds that know the hidden truth, and do not compete: oracle (")
    assert card.method == (
        "95 % intervals: bootstrap over 60 test users; p: paired over users, Holm's correction over 3 pairs of models; "
        "metrics are averaged over the seeds, in every resample too"
    )
    assert card.summary.startswith(f"shop: {GOOD} has the best AUC, {cell.mean:.4f}, {number} over base (p")


def test_what_is_not_told_apart(results: Path) -> None:
    # of one seed each, these two differ by hardly anything
    files = [path for path in metric_files(results) if path.parts[-3:-1] in (("base", "seed-1"), ("same", "seed-1"))]
    for against in ("base", "same"):
        table = collect("shop", files, against, SETTINGS)
        card = said(table, results)
        assert card is not None
        first, second = (entry.name for entry in table.ranked("AUC"))
        assert card.sentences == [f"{first} cannot be told apart from {second}."]
        alone = f"No model is better than the baseline, {first}."
        assert card.headline == (
            alone if first == against else f"{first} has the best AUC, but is not told apart from the baseline."
        )
        assert "averaged" not in card.method


def test_a_model_that_knows_the_truth_is_a_bound(results: Path) -> None:
    card = said(collected(results, bounds=[GOOD]), results)
    assert card is not None
    assert f"{GOOD} (0." in card.sentences[-1]
    assert "is better than all others" in card.sentences[0]
    assert said(collected(results, bounds=[GOOD, "base", "same"]), results) is None


def test_of_few_users_nothing_is_told_apart(results: Path, tmp_path: Path) -> None:
    few = tmp_path / "results"
    shutil.copytree(results, few)
    for path in metric_files(few):
        table = read_table(path.with_name("predictions.parquet"), "ctr_predictions").slice(0, 9 * 20)
        write_table(path.with_name("predictions.parquet"), table, "ctr_predictions")
        users, labels, predicted = (table.column(name).to_numpy() for name in ("user", "label", "probability"))
        content = read_json(path) | {"users": 9, "samples": 180}
        write_json(path, content | {"metrics": clicks.summarize(users, labels, predicted, 15)})
    table = collected(few)
    compared = compare(table)
    assert compared is not None
    assert (compared.p == 1).all()
    assert compared.intervals == {}
    card = said(table, few)
    assert card is not None
    assert "is not told apart from the baseline" in card.headline or card.headline.startswith("No model is better")
    claim = Claim(name="a", better=GOOD, than="base", metric="AUC")
    (tested,) = judge_claims("shop", metric_files(few), [claim], SETTINGS).claims
    assert (tested.verdict, tested.low, tested.detectable) == (UNDECIDED, None, None)


def test_the_cost_of_a_model_is_that_of_its_training(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    for seed, seconds in ((1, 30.0), (2, 50.0)):
        file = tree / "benchmarks" / "train_ctr" / "shop" / GOOD / f"seed-{seed}.tsv"
        write_text(file, f"s\tmax_rss\n{seconds}\t600.0\n")
    card = said(collected(tree), tree)
    assert card is not None
    assert card.facts[-1] == ("Training of a seed", "40 s", "600 MiB of memory")


CLAIMS = [
    Claim(name="better", better=GOOD, than="base", metric="AUC"),
    Claim(name="worse", better="base", than=GOOD, metric="GAUC"),
    Claim(name="by far", better=GOOD, than="base", metric="AUC", at_least=0.9),
    Claim(name="loss", better=GOOD, than="base", metric="log loss"),
    Claim(name="not much worse", better="same", than="base", metric="log loss", at_least=-0.5),
]


def by_name(results: Path) -> dict[str, claims.Tested]:
    table = judge_claims("shop", metric_files(results), CLAIMS, SETTINGS)
    return {claim.name: claim for claim in table.claims}


def test_claims_of_clicks_are_tested(results: Path, tmp_path: Path) -> None:
    tested = by_name(results)
    verdicts = {name: claim.verdict for name, claim in tested.items()}
    assert verdicts == {"better": HOLDS, "worse": FAILS, "by far": FAILS, "loss": HOLDS, "not much worse": HOLDS}
    table = collected(results)
    one = tested["better"]
    means = [table.cells[name, COLUMN].mean for name in (GOOD, "base")]
    assert (one.better_mean, one.than_mean) == pytest.approx(tuple(means))
    assert one.difference == pytest.approx(means[0] - means[1])
    assert (one.users, one.better_seeds, one.than_seeds) == (60, 2, 2)
    drawn = drawn_auc(results, GOOD, 200) - drawn_auc(results, "base", 200)
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    # z(1 - 0.05 / 10) + z(0.8)
    assert one.detectable == pytest.approx((2.5758293 + 0.8416212) * drawn.std(ddof=1))
    assert one.p == pytest.approx(1 / 201)
    assert [one.p_holm, one.least_p] == pytest.approx([5 / 201, 5 / 201])
    assert tested["by far"].p == pytest.approx(1 / 201)
    # a lower loss is a positive difference
    loss = tested["loss"]
    assert loss.difference is not None
    assert loss.difference == pytest.approx((loss.than_mean or 0) - (loss.better_mean or 0))
    assert loss.difference > 0
    assert loss.low is not None
    assert loss.low > 0

    paths = {ending: tmp_path / f"claims.{ending}" for ending in ("parquet", "csv", "md")}
    whole = judge_claims("shop", metric_files(results), CLAIMS, SETTINGS)
    claims.write(whole, [path.with_name("predictions.parquet") for path in metric_files(results)], paths)
    assert claims.read(paths["parquet"]) == whole
    text = paths["md"].read_text()
    assert r"| loss | holds | good\_\<one\> is better than base in log loss |" in text
    assert "paired bootstrap over users (200 resamples)" in text
    assert "seeds averaged in every resample" in text
    assert "√users" not in text


def test_the_page_of_clicks_opens_with_the_answer(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    files = metric_files(tree)
    table = collected(tree)
    write(table, {kind: tree / f"tables/shop-ctr.{kind}" for kind in ("parquet", "csv", "md", "tex")})
    tested = judge_claims("shop", files, CLAIMS, SETTINGS)
    outputs = {kind: tree / f"tables/shop-claims-ctr.{kind}" for kind in ("parquet", "csv", "md")}
    claims.write(tested, [path.with_name("predictions.parquet") for path in files], outputs)
    config = {"task": "ctr", "claims": [claim.model_dump() for claim in CLAIMS]}
    build(tree / "report/index.html", Report(), {"shop": RUNS}, config, tree)
    page = (tree / "report/index.html").read_text()
    assert page.index("is the best model.") < page.index(">Claims</h3>") < page.index("Click-through rate</h3>")
    assert "good_&lt;one&gt; is better than base in log loss" in page
    matrix = re.search(r'<table class="wins">.*?</table>', page, re.DOTALL)
    assert matrix is not None
    rows = re.findall(r'<tr><th scope="row">([^<]+)</th><td>(\d+)</td><td>(\d+)</td>', matrix[0])
    compared = compare(table)
    assert compared is not None
    names = [entry.name.replace("<", "&lt;").replace(">", "&gt;") for entry in compared.ranked]
    assert rows == [(name, str(compared.beaten(n)), str(compared.lost(n))) for n, name in enumerate(names)]
    assert f"{compared.difference(0, 1):+.4f}*" in matrix[0]
    assert '<meta property="og:description" content="shop: good_&lt;one&gt; has the best AUC' in page


def test_claims_may_name_what_is_tested() -> None:
    assert OF_CLICKS == TESTED


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            {"better": "din_lon", "than": "din", "metric": "AUC"},
            r"claims.0.better: unknown name 'din_lon'; did you mea",
        ),
        ({"better": "din", "than": "din", "metric": "AUC"}, r"claims.0.than: 'din' is compared with itself"),
        ({"better": "din_long", "than": "din", "metric": "GAUCC"}, r"claims.0.metric: .*did you mean 'GAUC'"),
        ({"better": "din_long", "than": "din"}, r"claims.0.metric: unknown name 'NDCG@10'"),
        ({"better": "oracle", "than": "din", "metric": "AUC"}, r"claims.0.better: unknown name 'oracle'"),
    ],
)
def test_claims_of_clicks_that_cannot_be_tested_are_refused(claim: dict[str, Any], message: str) -> None:
    config = yaml.safe_load((Path(__file__).resolve().parents[3] / "config/ctr-tiny.yaml").read_text())
    with pytest.raises(ConfigError, match=message):
        load({**config, "claims": [{"name": "a", **claim}]})
    good = {"name": "a", "better": "din_long", "than": "din", "metric": "log loss"}
    assert load({**config, "claims": [good]}).claims[0].better == "din_long"
