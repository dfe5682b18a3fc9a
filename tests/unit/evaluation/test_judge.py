import numpy as np
import pyarrow as pa
import pytest
import torch

from quick import quick
from tessera.artifacts.tables import ArtifactError, write_table
from tessera.data.dataset import Cases
from tessera.evaluation import candidates
from tessera.evaluation.candidates import parse_candidates, read_candidates, sample_candidates
from tessera.evaluation.groups import history_groups, item_groups
from tessera.evaluation.judge import evaluation_table, list_metrics, rank_cases, summarize
from tessera.evaluation.ranking import ScoreFormError
from tessera.settings.evaluation import Evaluation, SampledRanking

ITEMS = 40


class Scorer:
    """Scores by a fixed matrix of the last item; reads at most `max_history` items.

    With `lowest` every third item has the score of what is masked, which it is not.
    """

    def __init__(self, max_history=None, lowest=False):
        self.max_history = max_history
        self.matrix = np.random.default_rng(0).integers(0, 9, (ITEMS + 1, ITEMS)).astype(np.float32)
        if lowest:
            self.matrix[:, ::3] = -np.inf

    def __call__(self, histories):
        last = histories.items[torch.arange(len(histories)), histories.lengths - 1]
        return torch.from_numpy(self.matrix[last.numpy()].copy())


def make_cases(seed=1, n=30):
    rng = np.random.default_rng(seed)
    histories = [rng.integers(1, ITEMS + 1, rng.integers(0 if i == 3 else 1, 12)) for i in range(n)]
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    targets = rng.integers(1, ITEMS + 1, n).astype(np.int32)
    return Cases(np.arange(1, n + 1, dtype=np.int32) * 2, targets, offsets, np.concatenate(histories).astype(np.int32))


def brute_force(scorer, cases, case, mask):
    history = cases.history(case)
    scores = scorer.matrix[history[-1] if len(history) else 0].copy()
    target = cases.targets[case] - 1
    value = scores[target]
    if mask and target + 1 in history:
        return np.inf
    others = np.delete(scores, [target, *(i - 1 for i in history)] if mask else [target])
    return 1 + (others > value).sum() + 0.5 * (others == value).sum()


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 256])
@pytest.mark.parametrize("max_history", [None, 2])
@pytest.mark.parametrize("lowest", [False, True])
def test_ranks_are_those_of_a_loop_over_users(mask, batch, max_history, lowest):
    cases, scorer = make_cases(), Scorer(max_history, lowest)
    found = rank_cases(scorer, cases, Evaluation(mask_seen=mask, batch_users=batch), recommend=5)
    expected = [brute_force(scorer, cases, case, mask) for case in range(len(cases))]
    np.testing.assert_array_equal(found.ranks, expected)
    if mask:
        for case in range(len(cases)):
            seen = set(cases.history(case))
            assert not seen & set(found.recommended[case])
            assert found.candidates[case] == ITEMS - len(seen)


def test_a_target_of_the_lowest_score_ties_with_no_empty_place():
    cases, scorer = make_cases(), Scorer(lowest=True)
    settings = Evaluation(candidates=SampledRanking(kind="sampled", negatives=4), mask_seen=True)
    drawn = np.random.default_rng(2).integers(1, ITEMS + 1, (len(cases), 4)).astype(np.int32)
    drawn = np.where(drawn == cases.targets[:, None], 0, drawn)
    wide = np.concatenate([drawn, np.zeros((len(drawn), 6), drawn.dtype)], axis=1)
    one, other = (rank_cases(scorer, cases, settings, candidates) for candidates in (drawn, wide))
    np.testing.assert_array_equal(one.ranks, other.ranks)
    np.testing.assert_array_equal(one.candidates, other.candidates)


def test_a_shuffled_order_of_cases_gives_the_same_table():
    cases, scorer = make_cases(), Scorer()
    popularity = np.ones(ITEMS + 1, np.int64)
    order = np.random.default_rng(3).permutation(len(cases))
    histories = [cases.history(case) for case in order]
    shuffled = Cases(
        cases.users[order], cases.targets[order],
        np.concatenate([[0], np.cumsum([len(h) for h in histories])]), np.concatenate(histories),
    )  # fmt: skip
    tables = [
        evaluation_table(c, rank_cases(scorer, c, Evaluation(), recommend=5), popularity) for c in (cases, shuffled)
    ]
    assert tables[0].equals(tables[1])


def test_items_that_nobody_met_are_of_the_tail():
    groups = item_groups(np.array([0, 0, 5, 0, 1, *[0] * 15]), Evaluation(head_share=0.5))["popularity"]
    assert np.flatnonzero(groups["head"]).tolist() == [2, 4]
    assert groups["tail"].sum() == 17


def test_item_groups_partition_the_catalogue_and_bins_hold_equal_mass():
    popularity = np.concatenate([[0], np.random.default_rng(0).zipf(1.5, 500).clip(max=400)])
    groups = item_groups(popularity, Evaluation())
    for named in groups.values():
        total = sum(members.astype(int) for members in named.values())
        assert total[0] == 0
        assert (total[1:] == 1).all()
    assert groups["popularity"]["head"].sum() == 100
    masses = [popularity[members].sum() / popularity.sum() for members in groups["popularity_bins"].values()]
    assert max(masses) - min(masses) <= 2 * popularity.max() / popularity.sum()
    assert popularity[groups["popularity"]["head"]].min() >= popularity[groups["popularity"]["tail"]].max()


def test_history_groups_cover_every_user():
    lengths = np.arange(1, 100)
    groups = history_groups(lengths, Evaluation())
    assert list(groups) == ["1-5", "6-10", "11-20", "21-50", ">50"]
    assert (sum(g.astype(int) for g in groups.values()) == 1).all()


def table_of(ranks, items):
    n = len(ranks)
    return pa.table(
        {"user": range(1, n + 1), "item": pa.array(items, pa.int32()), "rank": pa.array(ranks, pa.float64()),
         "history_length": pa.array([4] * n, pa.int32()), "recommended": pa.array([[1, 2]] * n, pa.list_(pa.int32()))}
    )  # fmt: skip


@pytest.mark.parametrize(("policy", "hits", "users"), [("miss", 1 / 3, 3), ("drop", 0.5, 2), ("rank", 2 / 3, 3)])
def test_cold_targets_are_missed_dropped_or_ranked(policy, hits, users):
    popularity = np.array([0, 5, 5, 0])
    table = table_of([1.0, 30.0, 1.0], [1, 2, 3])
    found = summarize(table, Evaluation(cold_targets=policy), popularity, "full", system="x")
    assert found["metrics"]["Hit@10"] == pytest.approx(hits)
    assert found["users"] == users
    assert found["cold_share"] == pytest.approx(1 / 3)
    assert found["system"] == "x"


def test_sampled_candidates_avoid_history_and_target_and_do_not_depend_on_other_users():
    cases = make_cases()
    popularity = np.arange(ITEMS + 1)
    settings = SampledRanking(negatives=20, distribution="popularity", seed=4)
    table = sample_candidates(cases, settings, popularity)
    for case, row in enumerate(table.column("items").to_pylist()):
        assert len(set(row)) == 20
        assert not set(row) & ({*cases.history(case).tolist(), int(cases.targets[case])})
    alone = Cases(cases.users[5:6], cases.targets[5:6], cases.offsets[5:7] - cases.offsets[5],
                  cases.items[cases.offsets[5]:cases.offsets[6]])  # fmt: skip
    assert sample_candidates(alone, settings, popularity).column("items")[0] == table.column("items")[5]


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_negatives_of_large_catalogues_are_of_the_same_distribution(distribution, monkeypatch):
    """Drawn one by one, or all at once: how often an item is drawn, alone and beside another one, is the same."""
    items, users = 40, 6000
    histories = np.tile(np.array([3, 9, 9], np.int32), users)
    cases = Cases(
        np.arange(1, users + 1, dtype=np.int32), np.full(users, 5, np.int32), np.arange(users + 1) * 3, histories
    )
    popularity = np.random.default_rng(0).integers(0, 30, items + 1)
    drawn = {}
    for name, large in (("at once", 10**9), ("one by one", 1)):
        monkeypatch.setattr(candidates, "_LARGE", large)
        settings = SampledRanking(kind="sampled", negatives=2, distribution=distribution)
        lists = sample_candidates(cases, settings, popularity).column("items").to_pylist()
        assert all(len(set(row)) == 2 and not {3, 5, 9} & set(row) for row in lists)
        seen = np.zeros((items + 1, items + 1))
        for one, other in lists:
            seen[one, other] += 1
            seen[other, one] += 1
        drawn[name] = seen / users
    one, other = drawn.values()
    alone = one.sum(1)
    error = np.sqrt(alone * (1 - alone) / users + 1e-9)
    assert (np.abs(alone - other.sum(1)) < 5 * error).all()
    pairs = np.sqrt(one * (1 - one) / users + 1e-7)
    assert (np.abs(one - other) < 6 * pairs).all()


def test_a_million_items_are_not_drawn_for_every_user():
    users, items = 200, 1_000_000
    history = np.random.default_rng(0).integers(1, items + 1, users * 5).astype(np.int32)
    cases = Cases(np.arange(1, users + 1, dtype=np.int32), history[:users], np.arange(users + 1) * 5, history)
    settings = SampledRanking(kind="sampled", negatives=100, distribution="popularity")
    # eight seconds when every item is
    table = quick(lambda: sample_candidates(cases, settings, np.arange(items + 1)), 2)
    first = table.column("items")[0].as_py()
    again = sample_candidates(cases.take(np.arange(1)), settings, np.arange(items + 1))
    assert first == again.column("items")[0].as_py()
    assert len(set(first)) == 100


def test_too_many_negatives_are_refused_with_the_counts():
    with pytest.raises(ValueError, match=r"40 negatives .* items unseen"):
        sample_candidates(make_cases(), SampledRanking(negatives=40), np.ones(ITEMS + 1))


def test_candidates_file_ranks_among_its_negatives(tmp_path):
    cases, scorer = make_cases(), Scorer()
    file = tmp_path / "negatives.txt"
    raw_users = [""] + [f"u{u}" for u in range(1, 100)]
    raw_items = [""] + [f"00{i}" for i in range(1, ITEMS + 1)]
    rng = np.random.default_rng(0)
    negatives = {int(u): rng.choice(ITEMS, 9, replace=False) + 1 for u in cases.users}
    lines = [f"u{u} {' '.join(f'00{i}' for i in row)}\n" for u, row in reversed(negatives.items())]
    file.write_text("".join(lines))
    path = tmp_path / "candidates.parquet"
    write_table(path, parse_candidates(file, raw_users, raw_items), "candidates")
    candidates = read_candidates(path, cases, ITEMS)
    found = rank_cases(scorer, cases, Evaluation(mask_seen=False), candidates)
    for case, user in enumerate(cases.users):
        history = cases.history(case)
        scores = scorer.matrix[history[-1] if len(history) else 0]
        target = cases.targets[case]
        others = scores[[i - 1 for i in negatives[int(user)] if i != target]]
        value = scores[target - 1]
        assert found.ranks[case] == 1 + (others > value).sum() + 0.5 * (others == value).sum()
        assert found.candidates[case] == len(others) + 1


def test_an_unknown_item_in_a_candidates_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "negatives.txt"
    file.write_text("1 1 2\n2 1 99\n")
    with pytest.raises(ArtifactError, match=r"line 2: item '99' is not in the dataset"):
        parse_candidates(file, ["", "1", "2"], ["", "1", "2"])


class Wrong(Scorer):
    """Gives something else than floats (histories, items)."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def __call__(self, histories):
        return self.form(super().__call__(histories))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda s: torch.cat([s[:, :1], s], 1), r"torch.float32 \(30, 41\)"),  # with the padding
        (lambda s: s[0], r"torch.float32 \(40,\)"),
        (lambda s: s[:1], r"torch.float32 \(1, 40\)"),
        (lambda s: s.numpy(), r"ndarray \(30, 40\)"),
        (lambda s: s.long(), r"torch.int64 \(30, 40\)"),
        (lambda s: None, "NoneType"),
    ],
)
def test_scores_of_another_form_are_refused(form, said):
    expected = rf"Wrong gives {said} as scores of 30 histories; expected a tensor of floats \(30, 40\)"
    with pytest.raises(ScoreFormError, match=expected):
        rank_cases(Wrong(form), make_cases(), Evaluation(), catalogue=ITEMS)


@pytest.mark.parametrize("form", [lambda kept, n: kept[:n], lambda kept, n: kept[:1].expand(n, -1)])
def test_what_a_scorer_keeps_is_not_written_over(form):
    class Kept(Scorer):
        def __call__(self, histories):
            return form(self.matrix_of_users, len(histories))

    scorer, settings = Kept(), Evaluation(batch_users=7)
    scorer.matrix_of_users = torch.from_numpy(scorer.matrix.copy())
    before = scorer.matrix_of_users.clone()
    rank_cases(scorer, make_cases(), settings, recommend=5, catalogue=ITEMS)
    assert torch.equal(scorer.matrix_of_users, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_in_half_precision_have_the_ranks_of_their_values(dtype):
    # several thousand items: half precision cannot hold the counts that ranks are made of
    scores = torch.randn((20, 5000), generator=torch.Generator().manual_seed(3)).to(dtype)
    cases = make_cases(n=20)
    taken, same = (Evaluation(mask_seen=False, batch_users=20) for _ in range(2))
    half = rank_cases(lambda_scorer(lambda n: scores[:n]), cases, taken, recommend=5, catalogue=5000)
    full = rank_cases(lambda_scorer(lambda n: scores[:n].float()), cases, same, recommend=5, catalogue=5000)
    np.testing.assert_array_equal(half.ranks, full.ranks)
    np.testing.assert_array_equal(half.recommended, full.recommended)


def lambda_scorer(give):
    class Given:
        max_history = None

        def __call__(self, histories):
            return give(len(histories))

    return Given()


def test_lists_without_an_item_have_no_concentration():
    settings = Evaluation()
    empty = pa.table({"recommended": pa.array([[], []], pa.list_(pa.int32()))})
    assert list_metrics(empty, np.arange(6), settings) == {"coverage@10": 0.0}
    one = pa.table({"recommended": pa.array([[], [2]], pa.list_(pa.int32()))})
    assert list_metrics(one, np.arange(6), settings) == {"coverage@10": 0.2, "gini@10": 0.8, "popularity@10": 2.0}
