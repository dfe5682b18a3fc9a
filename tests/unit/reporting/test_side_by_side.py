"""Test users under two systems side by side, as data of the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from reporting_world import EVIL, EVIL_USER, ORDER, USERS, make, metric_files

from tessera.artifacts.tables import read_table, write_table
from tessera.reporting import side_by_side as module
from tessera.reporting.ranking import RankingTable, collect
from tessera.reporting.ranking_runs import user_metrics
from tessera.reporting.samples import Catalogue, histories
from tessera.reporting.side_by_side import side_by_side
from tessera.settings.evaluation import Evaluation, Significance

TESTS = Significance(method="t_test", baseline="id/sasrec")


def collected(results: Path, judge: Evaluation | None = None, bounds: Iterable[str] = ()) -> RankingTable:
    return collect("bazaar", metric_files(results), ORDER, judge or Evaluation(), TESTS, bounds)


def shown(results: Path, table: RankingTable, main: str = "NDCG@10", most: int = 500, **more: Any) -> dict[str, Any]:
    data = results / "bazaar" / "data"
    text = side_by_side(Catalogue(data), data / "users.parquet", table, main, most, **more)
    assert "<" not in text
    return dict(json.loads(text))


def test_every_user_has_what_the_evaluations_hold(results: Path) -> None:
    data = shown(results, collected(results))
    assert data["systems"] == ["semantic/sasrec", "id/sasrec", "id/gru4rec", "popular", "oracle"]
    assert (data["cutoff"], data["first"], data["second"]) == (10, 0, 1)
    assert data["several_seeds"]
    ids = [item[1] for item in data["items"]]
    raw = dict(zip(*(read_table(results / "bazaar/data/users.parquet", "users").column(n).to_pylist()
                     for n in ("raw_id", "user")), strict=True))  # fmt: skip
    assert [user[0] for user in data["users"]] == list(raw)
    interactions = read_table(results / "bazaar/data/interactions.parquet", "interactions").to_pylist()
    for place, run in enumerate(("semantic/sasrec/seed-1", "id/sasrec/seed-1", "id/gru4rec/seed-1")):
        rows = {
            row["user"]: row
            for row in read_table(results / f"bazaar/runs/{run}/evaluation.parquet", "evaluation").to_pylist()
        }
        for user in data["users"]:
            row = rows[raw[user[0]]]
            assert user[4][place] == (row["rank"] if row["popularity"] else None)  # a cold target is a miss
            assert [int(ids[item]) for item in user[5][place]] == row["recommended"][:10]
            assert int(ids[user[3]]) == row["item"]
    for user in data["users"]:
        own = sorted((r["position"], r["item"]) for r in interactions if r["user"] == raw[user[0]])
        before = [item for position, item in own][:-1]  # the last one is the test interaction
        assert user[1] == len(before)
        assert [int(ids[item]) for item in user[2]] == before[-10:]


def test_counts_are_of_all_test_users_and_of_the_metric(results: Path) -> None:
    table = collected(results)
    data = shown(results, table, most=7)
    assert len(data["users"]) == 7
    hits = []
    for name in ("semantic/sasrec", "id/sasrec"):
        entry = next(entry for entry in table.entries if entry.name == name)
        rows = pq.read_table(entry.runs[0].path.with_name("evaluation.parquet")).sort_by("user")
        hits.append((rows.column("rank").to_numpy() <= 10) & (rows.column("popularity").to_numpy() > 0))
        place = data["systems"].index(name)
        # of one seed, the metric of the table
        assert data["both"][place][place] / USERS == pytest.approx(entry.runs[0].metrics["Hit@10"])
    one, other = hits
    assert data["both"][0][1] == data["both"][1][0] == (one & other).sum()
    assert data["alone"][0][1] == (one & ~other).sum() > 0
    assert data["alone"][1][0] == (other & ~one).sum()
    assert data["judged"] == [[USERS] * 5] * 5


def test_of_many_users_some_are_spread_over_the_rank_under_the_best_system(results: Path) -> None:
    table = collected(results)
    every = shown(results, table)["users"]
    some = shown(results, table, most=8)["users"]
    order = sorted(range(USERS), key=lambda n: (every[n][4][0] or np.inf, n))
    expected = [every[order[int((n + 0.5) * USERS / 8)]][0] for n in range(8)]
    assert sorted(user[0] for user in some) == sorted(expected)
    assert [user[0] for user in some] == [user[0] for user in every if user[0] in expected]


def test_a_policy_that_leaves_targets_out_or_misses_them_holds_here_too(tmp_path: Path) -> None:
    for policy in ("miss", "drop"):
        judge = Evaluation(repeat_targets=policy, cold_targets="drop")
        tree = make(tmp_path / policy, settings=judge, repeats=9)
        table = collected(tree, judge)
        data = shown(tree, table)
        users = user_metrics(table.entries[0], judge).users
        assert len(data["users"]) == len(users) < USERS
        missed = [user for user in data["users"] if user[4][0] is None]
        assert len(missed) == (0 if policy == "drop" else np.isin(users, np.arange(1, 10)).sum())
        assert data["judged"][0][1] == len(users)


def test_a_bound_that_did_not_judge_everybody(results: Path, tmp_path: Path) -> None:
    """The oracle of a world knows fewer users: they are left out of its pairs alone."""
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    path = tree / "bazaar/runs/oracle/oracle/seed-0/evaluation.parquet"
    few = read_table(path, "evaluation").sort_by("user").slice(0, 30)
    write_table(path, few.replace_schema_metadata(None), "evaluation")
    metrics = json.loads(path.with_name("metrics.json").read_text())
    ranks = np.where(few.column("popularity").to_numpy() > 0, few.column("rank").to_numpy(), np.inf)
    own = {"Hit@5": (ranks <= 5).mean(), "Hit@10": (ranks <= 10).mean(), "Hit@20": (ranks <= 20).mean()}
    metrics["metrics"] = {"MRR": float((1 / ranks).mean()), **{k: float(v) for k, v in own.items()}}
    path.with_name("metrics.json").write_text(json.dumps(metrics | {"users": 30}))
    data = shown(tree, collected(tree), main="MRR")
    bound = data["systems"].index("oracle")
    assert sum(user[4][bound] == -1 for user in data["users"]) == USERS - 30
    assert all(not user[5][bound] for user in data["users"] if user[4][bound] == -1)
    assert data["judged"][0][bound] == data["judged"][bound][bound] == 30
    assert data["judged"][0][1] == USERS
    assert data["both"][bound][bound] == (ranks <= 10).sum()


def test_texts_and_pictures(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = collected(results)
    data = shown(results, table, elsewhere={4, 5})
    by_id = {item[1]: item for item in data["items"]}
    assert by_id["001"][0] == EVIL[:110]
    assert by_id["004"][3] == by_id["005"][3] == 0
    assert by_id["003"][3] is None
    assert by_id["006"][3].startswith("data:image/")
    assert by_id["006"][2] == Catalogue(results / "bazaar/data").counts[6]
    assert EVIL_USER in [user[0] for user in data["users"]]
    monkeypatch.setattr(module, "PICTURES", 3)
    few = shown(results, table)["items"]
    assert sum(item[3] is not None for item in few) == 3


def test_nothing_to_compare(results: Path) -> None:
    data = results / "bazaar" / "data"
    table = collected(results)
    assert side_by_side(Catalogue(data), data / "users.parquet", table, "NDCG@10", 0) == ""
    alone = collect("bazaar", [f for f in metric_files(results) if "popular" in str(f)], ORDER, Evaluation(),
                    Significance())  # fmt: skip
    assert side_by_side(Catalogue(data), data / "users.parquet", alone, "NDCG@10", 10) == ""


def test_a_history_ends_before_the_first_test_interaction(results: Path) -> None:
    catalogue = Catalogue(results / "bazaar" / "data")
    past = histories(catalogue, [1, 2, 999])
    assert past[999] == []
    rows = catalogue.interactions.to_pylist()
    for user in (1, 2):
        own = sorted((row for row in rows if row["user"] == user), key=lambda row: row["position"])
        assert past[user] == [row["item"] for row in own if row["split"] != "test"]
