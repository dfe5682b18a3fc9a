"""Targets that stand in the user's own history, against a loop over users that knows sets and nothing else."""

import csv

import numpy as np
import pyarrow as pa
import pytest
import torch

from tessera.data.dataset import Cases
from tessera.evaluation.candidates import sample_candidates
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import (
    counted_cases,
    evaluation_table,
    protocol_name,
    rank_cases,
    summarize,
    validation_metrics,
)
from tessera.settings.evaluation import Evaluation

ITEMS = 30
POLICIES = [(True, "miss"), (True, "drop"), (True, "unmasked"), (False, "miss"), (False, "drop")]
PROTOCOLS = ["full", "sampled", "file"]


class Likes:
    """Scores that rise with how often an item was seen, told apart by a fixed noise."""

    max_history = None

    def __init__(self, items=ITEMS, ties=False):
        self.noise = np.zeros(items) if ties else np.random.default_rng(5).random(items)

    def __call__(self, histories):
        counts = np.stack([np.bincount(row, minlength=len(self.noise) + 1)[1:] for row in histories.items.numpy()])
        return torch.from_numpy((counts + self.noise).astype(np.float32))


def make_cases(n=60, seed=2):
    """Every third user comes back to an item; one has seen everything, one nothing."""
    rng = np.random.default_rng(seed)
    histories, targets = [], []
    for user in range(n):
        history = rng.integers(1, ITEMS + 1, rng.integers(1, 14))
        unseen = np.setdiff1d(np.arange(1, ITEMS + 1), history)
        targets.append(int(rng.choice(history if user % 3 == 0 else unseen)))
        histories.append(history)
    histories[6] = rng.permutation(np.arange(1, ITEMS + 1))
    histories[7] = np.zeros(0, int)
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    flat = np.concatenate(histories).astype(np.int32)
    return Cases(np.arange(1, n + 1, dtype=np.int32), np.array(targets, np.int32), offsets, flat)


def settings_of(protocol, mask, policy, negatives=8, **more):
    candidates = {
        "full": {"kind": "full"},
        "sampled": {"kind": "sampled", "negatives": negatives},
        "file": {"kind": "file", "path": "negatives.txt"},
    }[protocol]
    return Evaluation(candidates=candidates, mask_seen=mask, repeat_targets=policy, **more)


def drawn(cases, settings):
    """Unseen negatives, a row a case, padded."""
    rows = sample_candidates(cases, settings_of("sampled", True, "miss").candidates, np.ones(ITEMS + 1))
    rows = rows.column("items").to_pylist()
    width = max(map(len, rows))
    return None if settings.candidates.kind == "full" else np.array([row + [0] * (width - len(row)) for row in rows])


def rank_by_loop(scores, history, target, negatives, settings):
    """The rank of one target by the words of the documentation."""
    seen, everything = set(history), set(range(1, len(scores) + 1))
    repeat = target in seen
    masked = settings.mask_seen and not (repeat and settings.repeat_targets == "unmasked")
    if masked and repeat:
        return np.inf
    kind = settings.candidates.kind
    if kind == "full":
        rivals = everything
    elif kind == "sampled":
        rivals = set(negatives) | seen
    else:
        rivals = set(negatives) | (seen if repeat else set())
    rivals = rivals - {0, target} - (seen if masked else set())
    own = scores[target - 1]
    others = [scores[item - 1] for item in rivals]
    greater, equal = sum(o > own for o in others), sum(o == own for o in others)
    return 1 + greater + (equal / 2 if settings.ties == "mean" else equal)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("mask", "policy"), POLICIES)
@pytest.mark.parametrize("batch", [1, 13, 256])
@pytest.mark.parametrize("ties", ["mean", "pessimistic"])
def test_ranks_are_those_of_a_loop_over_users(protocol, mask, policy, batch, ties):
    cases, scorer = make_cases(), Likes(ties=ties == "pessimistic")
    settings = settings_of(protocol, mask, policy, batch_users=batch, ties=ties)
    candidates = drawn(cases, settings)
    found = rank_cases(scorer, cases, settings, candidates, recommend=5)
    expected, hits = [], 0
    for case in range(len(cases)):
        history, target = cases.history(case), cases.targets[case]
        asked = Histories.of(history[None] if len(history) else np.zeros((1, 1), int))
        scores = scorer(asked)[0].numpy()
        negatives = [] if candidates is None else candidates[case]
        expected.append(rank_by_loop(scores, history.tolist(), int(target), list(negatives), settings))
        if protocol == "full" and ties == "mean":  # the list and the rank tell the same
            assert (target in found.recommended[case]) == (expected[-1] <= 5)
            hits += expected[-1] <= 5
    np.testing.assert_array_equal(found.ranks, expected)
    assert (np.isinf(found.ranks) == (cases.repeats & mask & (policy != "unmasked"))).all()
    assert np.isfinite(found.scores).all()
    assert protocol != "full" or ties != "mean" or hits


def test_repeats_are_those_of_a_loop():
    cases = make_cases()
    expected = [cases.targets[case] in cases.history(case).tolist() for case in range(len(cases))]
    assert cases.repeats.tolist() == expected
    assert 0 < sum(expected) < len(cases)


def test_a_user_who_has_seen_everything_is_no_hit_for_anybody():
    cases = make_cases().take(np.array([6]))
    assert cases.repeats.all()
    for protocol in PROTOCOLS:
        settings = settings_of(protocol, True, "miss")
        found = rank_cases(Likes(), cases, settings, drawn(cases, settings), recommend=5)
        assert np.isinf(found.ranks).all()
        assert not found.recommended.any()
    # drawn negatives are none for this user, and nothing fails: seen items are what the target is ranked among
    open_ = settings_of("sampled", False, "miss")
    found = rank_cases(Likes(), cases, open_, drawn(cases, open_))
    assert found.candidates.tolist() == [ITEMS]


@pytest.mark.parametrize(("mask", "policy"), POLICIES)
def test_averages_are_those_of_a_loop_over_users(mask, policy):
    cases, settings = make_cases(), settings_of("full", mask, policy)
    popularity = np.ones(ITEMS + 1, np.int64)
    table = evaluation_table(cases, rank_cases(Likes(), cases, settings, recommend=10), popularity)
    found = summarize(table, settings, popularity, "full")
    kept = [case for case in range(len(cases)) if policy != "drop" or not cases.repeats[case]]
    ranks = []
    for case in kept:
        history = cases.history(case)
        scores = Likes()(Histories.of(history[None] if len(history) else np.zeros((1, 1), int)))[0].numpy()
        ranks.append(rank_by_loop(scores, history.tolist(), int(cases.targets[case]), [], settings))
    assert found["users"] == len(kept)
    assert found["test_users"] == len(cases)
    assert found["repeat_share"] == pytest.approx(cases.repeats.mean())
    assert found["metrics"]["MRR"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert found["metrics"]["Hit@5"] == pytest.approx(np.mean([rank <= 5 for rank in ranks]))
    gains = [1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in ranks]
    assert found["metrics"]["NDCG@10"] == pytest.approx(np.mean(gains))
    assert sum(group["users"] for group in found["groups"]["popularity"].values()) == len(kept)
    lists = table.column("recommended").to_pylist()
    assert found["metrics"]["coverage@10"] == len({item for case in kept for item in lists[case]}) / ITEMS


@pytest.mark.parametrize(("mask", "policy"), POLICIES)
def test_validation_follows_the_same_rule_as_the_test(mask, policy):
    cases, settings = make_cases(), settings_of("sampled", mask, policy)
    found = validation_metrics(Likes(), cases, settings)
    full = settings_of("full", mask, policy)
    ranks = rank_cases(Likes(), cases, full).ranks[~cases.repeats if policy == "drop" else slice(None)]
    assert found["Hit@10"] == pytest.approx((ranks <= 10).mean())
    assert len(counted_cases(cases, settings)) == len(ranks)


def read_repeats(data_root):
    """The last event of every user of faults/repeats.csv as the target, what came before as the history."""
    with data_root("faults", "repeats.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["user"], int(row["timestamp"])))
    ids = {item: number for number, item in enumerate(sorted({row["item"] for row in rows}), 1)}
    histories = {}
    for row in rows:
        histories.setdefault(row["user"], []).append(ids[row["item"]])
    flat = [history[:-1] for history in histories.values()]
    offsets = np.cumsum([0, *map(len, flat)]).astype(np.int64)
    targets = np.array([history[-1] for history in histories.values()], np.int32)
    users = np.arange(1, len(flat) + 1, dtype=np.int32)
    return Cases(users, targets, offsets, np.concatenate(flat).astype(np.int32)), len(ids)


@pytest.mark.parametrize("distribution", ["uniform", "popularity", None])
@pytest.mark.parametrize(("mask", "policy"), POLICIES)
def test_nobody_foresees_a_draw_among_six_favourites(data_root, distribution, mask, policy):
    cases, items = read_repeats(data_root)
    candidates = {"kind": "sampled", "negatives": 100, "distribution": distribution} if distribution else {}
    settings = Evaluation(
        candidates=candidates or {"kind": "full"}, mask_seen=mask, repeat_targets=policy, cutoffs=[1, 10]
    )
    among = None
    popularity = np.bincount(cases.items, minlength=items + 1)
    if distribution:
        among = np.array(sample_candidates(cases, settings.candidates, popularity).column("items").to_pylist())
    for scorer in (Likes(items), Likes(items, ties=True)):
        ranked = rank_cases(scorer, cases, settings, among)
        found = summarize(
            evaluation_table(cases, ranked, popularity), settings, popularity, protocol_name(settings, among)
        )
        assert found["repeat_share"] == 1.0
        if policy == "drop":
            assert found["users"] == 0
            continue
        hit = found["metrics"]["Hit@1"]
        assert hit == (ranked.ranks <= 1).mean()
        # 300 draws of a chance of a sixth: three standard errors
        assert hit <= 1 / 6 + 3 * (5 / 36 / 300) ** 0.5
        assert hit == 0 or policy == "unmasked" or not mask


def test_without_repeated_targets_no_setting_of_them_moves_anything():
    every = make_cases()
    cases = every.take(np.flatnonzero(~every.repeats))
    for protocol in PROTOCOLS:
        found = []
        for policy in ("miss", "drop", "unmasked"):
            settings = settings_of(protocol, True, policy)
            found.append(rank_cases(Likes(), cases, settings, drawn(cases, settings), recommend=7))
        for other in found[1:]:
            for part in ("ranks", "scores", "candidates", "recommended"):
                np.testing.assert_array_equal(getattr(other, part), getattr(found[0], part))


@pytest.mark.parametrize("rule", ["miss", "drop"])
def test_lists_are_counted_of_the_users_that_count(rule):
    popularity = np.array([0, 5, 5, 5, 0])  # item 4 is cold
    columns = {
        "user": [1, 2, 3], "item": [1, 1, 4], "rank": [1.0, 1.0, 1.0], "candidates": [4, 4, 4], "score": [0.0] * 3,
        "history_length": [1, 1, 1], "popularity": [5, 5, 0], "repeat": [False] * 3, "cold_rank": [None, None, 1.0],
        "cold_candidates": [0, 0, 1], "recommended": pa.array([[1], [1], [2]], pa.list_(pa.int32())),
    }  # fmt: skip
    told = summarize(pa.table(columns), Evaluation(cold_targets=rule), popularity, "full")
    assert told["users"] == (3 if rule == "miss" else 2)
    assert told["metrics"]["coverage@10"] == (0.5 if rule == "miss" else 0.25)
