"""What stands under every table: how many users were judged, and how many targets were seen before."""

from __future__ import annotations

import csv
import io
import json
import logging
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import reporting_world
from reporting_world import ORDER, metric_files

from tessera.artifacts.tables import describe
from tessera.reporting import formats
from tessera.reporting.ranking import collect
from tessera.reporting.ranking_runs import entries, user_metrics
from tessera.reporting.runs import baselines_of, best_of, few_users_warning
from tessera.reporting.tables import Column
from tessera.settings.evaluation import Evaluation, Significance

USERS = reporting_world.USERS
SEEN = 20


@pytest.mark.parametrize(
    ("policy", "mask", "said", "users"),
    [
        ("miss", True, "counted as misses", USERS),
        ("drop", True, "left out", USERS - SEEN),
        ("unmasked", True, "nothing masked for them", USERS),
        ("miss", False, "ranked like others", USERS),
        ("drop", False, "left out", USERS - SEEN),
    ],
)
def test_md_csv_tex_and_page_tell_users_and_repeated_targets(
    policy: str, mask: bool, said: str, users: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Evaluation.model_validate({"repeat_targets": policy, "mask_seen": mask})
    tree = reporting_world.make(tmp_path, settings=settings, repeats=SEEN)
    with caplog.at_level(logging.WARNING, logger="tessera"):
        page = reporting_world.write_report(tree, settings=settings).read_text()
    tables = tree / "tables"
    share = f"{SEEN}, {SEEN / USERS:.1%}"
    judged = f"{users} of {USERS} test users" if users < USERS else f"{USERS} test users"
    texts = [
        (tables / "bazaar.md").read_text(),
        (tables / "bazaar.tex").read_text().replace("\\%", "%"),
        unescape(page),
    ]
    for text in texts:
        assert judged in text
        assert f"targets in the user's own history ({share}): {said}" in text
        assert f"WARNING: only {users} test users" in text
        assert ("set evaluation.mask" in text) == mask
    assert ("mask_seen: false" in caplog.text) == mask
    for row in csv.DictReader(io.StringIO((tables / "bazaar.csv").read_text())):
        assert int(row["test users"]) == users
        assert float(row["repeated targets"]) == SEEN / USERS
    told = describe(tables / "bazaar.parquet")["judged"]
    assert (told["users"], told["test_users"], told["repeat_share"]) == (users, USERS, SEEN / USERS)


def test_a_masked_target_has_no_rank_on_the_page(tmp_path: Path) -> None:
    tree = reporting_world.make(tmp_path, repeats=USERS)
    page = reporting_world.write_report(tree).read_text()
    assert "the target is masked" in page
    assert "rank of the target" not in page


def test_users_that_are_left_out_are_left_out_of_the_tests_too(tmp_path: Path) -> None:
    settings = Evaluation(repeat_targets="drop")
    tree = reporting_world.make(tmp_path, settings=settings, repeats=SEEN)
    found = collect("bazaar", metric_files(tree), ORDER, settings, Significance(method="t_test"))
    every = reporting_world.make(tmp_path / "every")
    for entry, whole in zip(found.entries, entries(metric_files(every), ORDER), strict=True):
        kept, all_users = user_metrics(entry, settings), user_metrics(whole, Evaluation())
        assert kept.users.tolist() == list(range(SEEN + 1, USERS + 1))
        for name, values in kept.values.items():
            np.testing.assert_array_equal(values, all_users.values[name][SEEN:])
        np.testing.assert_array_equal(kept.head, all_users.head[SEEN:])


def test_a_table_of_nobody_is_refused(tmp_path: Path) -> None:
    settings = Evaluation(repeat_targets="drop")
    tree = reporting_world.make(tmp_path, settings=settings, repeats=USERS)
    with pytest.raises(ValueError, match=rf"none of its {USERS} test users counts: evaluation.repeat_targets: drop"):
        collect("bazaar", metric_files(tree), ORDER, settings, Significance())


def test_a_column_of_zeros_has_no_best(results: Path, tmp_path: Path) -> None:
    tree = reporting_world.make(tmp_path)
    for path in metric_files(tree):
        found = json.loads(path.read_text())
        found["groups"]["popularity"]["tail"]["metrics"]["NDCG@10"] = 0.0
        path.write_text(json.dumps(found))
    table = collect("bazaar", metric_files(tree), ORDER, Evaluation(), Significance(resamples=100))
    tail = Column("NDCG@10", "popularity", "tail")
    assert not any(table.cells[entry.name, tail].best for entry in table.entries)
    assert sum(table.cells[entry.name, Column("NDCG@10")].best for entry in table.entries) == 1
    assert "**0.0000**" not in formats.markdown(table)
    assert "textbf{0.0000}" not in formats.latex(table)


def test_the_best_is_the_largest_or_the_smallest_or_none() -> None:
    assert best_of([0.1, 0.3], smaller=False) == 0.3
    assert best_of([0.1, 0.3], smaller=True) == 0.1
    assert best_of([0.0, 0.3], smaller=True) == 0.0
    assert best_of([0.0, 0.0], smaller=False) is None
    assert best_of([0.0, 0.0], smaller=True) is None
    assert best_of([0.3], smaller=False) is None


@pytest.mark.parametrize(
    ("kind", "mask", "said"),
    [
        ("full", True, "ranked: full catalogue"),
        ("sampled", True, "ranked: the target and 100 sampled negatives"),
        ("sampled", False, "ranked: the target, the user's own history and 100 sampled negatives"),
    ],
)
def test_what_the_target_is_ranked_among_is_told(kind: str, mask: bool, said: str, results: Path) -> None:
    table = collect("bazaar", metric_files(results), ORDER, Evaluation(), Significance(resamples=100))
    settings = Evaluation.model_validate({"candidates": {"kind": kind}, "mask_seen": mask})
    shown = replace(table, protocol="full" if kind == "full" else "100 sampled", evaluation=settings)
    assert said in shown.notes()


def test_a_hundred_users_are_enough() -> None:
    assert few_users_warning(100) == ""
    assert few_users_warning(99).startswith("only 99 test users,")
    assert few_users_warning(1).startswith("only 1 test user,")


def test_a_heuristic_is_a_baseline_by_its_own_name(results: Path) -> None:
    found = entries(metric_files(results), ORDER)
    for name in ("popular", "popular/popular"):
        assert [entry.name for entry in baselines_of(found, name)] == ["popular/popular"]
    judged = Significance(resamples=100, baseline="popular")
    table = collect("bazaar", metric_files(results), ORDER, Evaluation(), judged)
    assert table.comparisons > 0
    assert any("than popular:" in note for note in table.notes())
