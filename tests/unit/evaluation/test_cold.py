"""Cold targets: ranked as scored, among all items and among cold ones, beside what chance gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tessera.artifacts.files import write_json
from tessera.artifacts.tables import write_table
from tessera.data.dataset import Cases
from tessera.evaluation import metrics
from tessera.evaluation.cold import chance
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import Ranked, evaluation_table, rank_cases, summarize
from tessera.reporting import formats
from tessera.reporting.ranking import RankingTable, collect
from tessera.reporting.tables import Column
from tessera.settings.evaluation import Evaluation, RepeatTargets, SampledRanking, Significance

ITEMS, USERS = 40, 60
COLD = np.zeros(ITEMS + 1, bool)
COLD[[0, 3, 8, 11, 20, 21, 22, 35, 40]] = True
POPULARITY = np.where(COLD, 0, np.arange(ITEMS + 1) % 7 + 1)


class Scorer:
    """Scores by a fixed matrix of the last item, with ties."""

    max_history = None

    def __init__(self, seed: int = 0) -> None:
        self.matrix = np.random.default_rng(seed).integers(0, 9, (ITEMS + 1, ITEMS)).astype(np.float32)

    def __call__(self, histories: Histories) -> torch.Tensor:
        last = histories.items[torch.arange(len(histories)), histories.lengths - 1]
        return torch.from_numpy(self.matrix[last.numpy()].copy())


@pytest.fixture
def cases() -> Cases:
    rng = np.random.default_rng(1)
    histories = [rng.integers(1, ITEMS + 1, rng.integers(1, 12)) for _ in range(USERS)]
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    targets = rng.choice(np.flatnonzero(COLD[1:]) + 1, USERS)
    targets[:20] = rng.integers(1, ITEMS + 1, 20)
    return Cases(np.arange(1, USERS + 1, dtype=np.int32), targets.astype(np.int32), offsets,
                 np.concatenate(histories).astype(np.int32))  # fmt: skip


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("repeat", ["miss", "drop", "unmasked"])
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_ranks_among_cold_items_are_those_of_a_loop(
    cases: Cases, mask: bool, repeat: RepeatTargets, batch: int
) -> None:
    settings = Evaluation(mask_seen=mask, repeat_targets=repeat, batch_users=batch)
    scorer = Scorer()
    found = rank_cases(scorer, cases, settings, cold=COLD)
    for case in range(len(cases)):
        target, history = int(cases.targets[case]), cases.history(case)
        if not COLD[target]:
            assert np.isnan(found.cold_ranks[case])
            assert found.cold_candidates[case] == 0
            continue
        hides = mask and not (repeat == "unmasked" and target in history)
        among = [item for item in np.flatnonzero(COLD)[1:] if not (hides and item in history) or item == target]
        assert found.cold_candidates[case] == len(among)
        if hides and target in history:
            assert found.cold_ranks[case] == np.inf
            continue
        scores = scorer.matrix[history[-1]]
        own, others = scores[target - 1], np.array([scores[item - 1] for item in among if item != target])
        assert found.cold_ranks[case] == 1 + (others > own).sum() + 0.5 * (others == own).sum()


def test_other_ranks_stay_and_nothing_is_told_without_cold_targets(cases: Cases) -> None:
    plain, both = (rank_cases(Scorer(), cases, Evaluation(), cold=cold) for cold in (None, COLD))
    np.testing.assert_array_equal(plain.ranks, both.ranks)
    warm = np.where(COLD, 1, POPULARITY)
    assert "cold" not in summarize(evaluation_table(cases, plain, warm), Evaluation(), warm, "full")["groups"]


def judged(cases: Cases, settings: Evaluation, ranked: Ranked | None = None) -> dict[str, dict[str, object]]:
    ranked = ranked or rank_cases(Scorer(), cases, settings, cold=COLD)
    summary = summarize(evaluation_table(cases, ranked, POPULARITY), settings, POPULARITY, "full")
    return dict(summary["groups"]["cold"])


@pytest.mark.parametrize("policy", ["miss", "drop", "rank"])
def test_policies_of_the_averages_do_not_touch_the_group(cases: Cases, policy: str) -> None:
    settings = Evaluation.model_validate({"cold_targets": policy})
    ranked = rank_cases(Scorer(), cases, settings, cold=COLD)
    found, cold = judged(cases, settings, ranked), COLD[cases.targets]
    assert found["cold"]["users"] == found["cold only"]["users"] == cold.sum()
    assert found["warm"]["users"] == (~cold).sum()
    for group, ranks in (("cold", ranked.ranks[cold]), ("cold only", ranked.cold_ranks[cold])):
        expected = {name: v.mean() for name, v in metrics.per_user(ranks, settings).items()}
        assert found[group]["metrics"] == pytest.approx(expected)
    warm = {name: v.mean() for name, v in metrics.per_user(ranked.ranks[~cold], settings).items()}
    assert found["warm"]["metrics"] == pytest.approx(warm)


def test_targets_of_the_history_are_dropped_from_the_group_too(cases: Cases) -> None:
    dropped = judged(cases, Evaluation(repeat_targets="drop"))
    assert dropped["cold"]["users"] == (COLD[cases.targets] & ~cases.repeats).sum() < COLD[cases.targets].sum()


def test_chance_is_the_mean_over_all_orders() -> None:
    counts, settings = np.array([1, 3, 7, 50]), Evaluation(cutoffs=[1, 5, 20], mrr_cutoffs=[5, 20])
    found = chance(counts, settings)
    for row, count in enumerate(counts):
        expected = {name: v.mean() for name, v in metrics.per_user(np.arange(1.0, count + 1), settings).items()}
        assert {name: v[row] for name, v in found.items()} == pytest.approx(expected)


def test_random_scores_come_to_chance() -> None:
    rng = np.random.default_rng(5)

    class Noise:
        max_history = None

        def __call__(self, histories: Histories) -> torch.Tensor:
            return torch.from_numpy(rng.random((len(histories), ITEMS)).astype(np.float32))

    users = 4000
    cases = Cases(np.arange(1, users + 1, dtype=np.int32), rng.choice(np.flatnonzero(COLD)[1:], users).astype(np.int32),
                  np.arange(users + 1), rng.integers(1, 3, users).astype(np.int32))  # fmt: skip
    found = judged(cases, Evaluation(), rank_cases(Noise(), cases, Evaluation(), cold=COLD))
    for group in ("cold", "cold only"):
        assert found[group]["metrics"]["Hit@5"] == pytest.approx(found[group]["chance"]["Hit@5"], abs=0.03)  # type: ignore[index]
        assert found[group]["metrics"]["NDCG@5"] == pytest.approx(found[group]["chance"]["NDCG@5"], abs=0.02)  # type: ignore[index]


def test_a_masked_target_is_a_miss_for_chance_too() -> None:
    history = np.array([3, 1, 3], np.int32)
    cases = Cases(np.array([1], np.int32), np.array([3], np.int32), np.array([0, 3]), history)
    assert judged(cases, Evaluation())["cold"]["chance"]["MRR"] == 0  # type: ignore[index]


def test_popularity_ranks_all_cold_items_alike() -> None:
    """Behind all others, and in the middle of their own kind."""

    class Popular:
        max_history = None

        def __call__(self, histories: Histories) -> torch.Tensor:
            return torch.from_numpy(POPULARITY[1:].astype(np.float32)).expand(len(histories), -1).clone()

    cases = Cases(np.array([1], np.int32), np.array([40], np.int32), np.array([0, 1]), np.array([1], np.int32))
    found = rank_cases(Popular(), cases, Evaluation(), cold=COLD)
    cold, warm = 8, ITEMS - 8 - 1
    assert found.cold_ranks[0] == (cold + 1) / 2
    assert found.ranks[0] == warm + (cold + 1) / 2


@pytest.fixture
def tables(cases: Cases, tmp_path: Path) -> Callable[..., RankingTable]:
    """`tables(settings)`: two systems through the judge and the metric table."""

    def make(settings: Evaluation, cases: Cases = cases) -> RankingTable:
        files = []
        for number, system in enumerate(("id", "text")):
            file = tmp_path / system / "sasrec" / "seed-1" / "metrics.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            chosen = None
            if settings.candidates.kind == "sampled":
                chosen = np.random.default_rng(0).integers(1, ITEMS + 1, (len(cases), 5))
            ranked = rank_cases(Scorer(number), cases, settings, chosen, 5, cold=COLD)
            table = evaluation_table(cases, ranked, POPULARITY)
            write_table(file.with_name("evaluation.parquet"), table, "evaluation")
            named = {"system": system, "recommender": "sasrec", "seed": 1}
            write_json(file, summarize(table, settings, POPULARITY, settings.candidates.kind, **named))
            files.append(file)
        return collect("shop", files, [], settings, Significance(resamples=200))

    return make


def test_columns_notes_and_tests_of_cold_targets(tables: Callable[..., RankingTable]) -> None:
    table = tables(Evaluation())
    heads = [table.header(column) for column in table.columns]
    assert heads[-4:] == ["cold Hit@10", "cold NDCG@10", "cold only Hit@10", "cold only NDCG@10"]
    cell = table.cells["text/sasrec", Column("NDCG@10", "cold", "cold only")]
    told = json.loads(table.entries[1].runs[0].path.read_text())["groups"]["cold"]["cold only"]
    assert cell.mean == pytest.approx(told["metrics"]["NDCG@10"])
    assert cell.p is not None
    text = formats.markdown(table)
    assert f"cold: the {told['users']} users whose target has no training interaction" in text
    assert f"{told['chance']['NDCG@10']:.4f} among cold items alone" in text
    assert f"only {told['users']} test users with a cold target" in text


def test_the_number_of_candidates_stands_beside_what_is_ranked_among_them(tables: Callable[..., RankingTable]) -> None:
    table = tables(Evaluation(candidates=SampledRanking(negatives=5)))
    heads = [table.header(column) for column in table.columns]
    assert "cold NDCG@10 (sampled)" in heads
    assert "cold only NDCG@10" in heads


def test_a_handful_of_cold_targets_gets_no_column(tables: Callable[..., RankingTable], cases: Cases) -> None:
    cold = COLD[cases.targets]
    few = cases.take(np.sort(np.concatenate([np.flatnonzero(~cold), np.flatnonzero(cold)[:5]])))
    table = tables(Evaluation(), few)
    assert not [column for column in table.columns if column.kind == "cold"]
    assert table.cells["id/sasrec", Column("MRR", "cold", "cold")].count == 5
    assert "cold: the" not in formats.markdown(table)
