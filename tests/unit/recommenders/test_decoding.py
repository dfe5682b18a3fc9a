"""Decoding against enumeration: every item's probability one by one, and a beam search in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quick import quick
from tessera.artifacts.codes import ABSENT, Part, SemanticIds
from tessera.evaluation.ranking import mask_seen, ranks
from tessera.recommenders.decoding import beam_search, exact_scores, item_scores, keep_share
from tessera.recommenders.systems.tiger import TIGER
from tessera.settings.systems.tiger import TIGERSystem

SMALL = {"dim": 16, "inner_dim": 24, "layers": 2, "heads": 2, "head_dim": 8, "dropout": 0.0}


def random_codes(sizes: list[int], items: int, seed: int = 0, distinct: bool = False) -> np.ndarray:
    """(items + 1, levels) codes, some equal unless `distinct`; item 3 has none."""
    rng = np.random.default_rng(seed)
    if distinct:
        flat = rng.choice(int(np.prod(sizes)), items, replace=False)
        rows = np.stack(np.unravel_index(flat, sizes), 1)
    else:
        rows = np.stack([rng.integers(size, size=items) for size in sizes], 1)
        rows[7] = rows[8] = rows[9]
    codes = np.concatenate([np.full((1, len(sizes)), ABSENT), rows]).astype(np.int64)
    codes[3] = ABSENT
    return codes


def make_model(codes: np.ndarray, sizes: list[int], **settings) -> TIGER:
    torch.manual_seed(0)
    ids = SemanticIds(codes, (Part("t", tuple(sizes)),))
    method = TIGERSystem(semantic_ids="c", **{**SMALL, **settings})
    model = TIGER(method, ids, np.ones(len(codes), np.int64)).double().eval()
    with torch.no_grad():
        model.items.weight.mul_(30)  # decided probabilities, so that a beam matters
    return model


def histories(items: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(1)
    lengths = torch.tensor([5, 1, 3, 4])
    rows = torch.from_numpy(rng.integers(1, items + 1, (4, 5)))
    return rows * (torch.arange(5) < lengths[:, None]), lengths


def children(codes: np.ndarray, prefix: tuple[int, ...]) -> list[int]:
    """Codes that follow a prefix in the catalogue."""
    known = {tuple(row) for row in codes.tolist() if row[0] != ABSENT}
    return sorted({row[len(prefix)] for row in known if row[: len(prefix)] == prefix})


@torch.no_grad()
def next_log_probabilities(model: TIGER, codes: np.ndarray, normalize: str):
    """A function of a user and a prefix: the log probability of every code that may follow, all tokens read again."""
    rows, lengths = histories(len(codes) - 1)

    @torch.no_grad()
    def after(user: int, prefix: tuple[int, ...]) -> dict[int, float]:
        level = len(prefix)
        memory = model.read(rows[user : user + 1, : lengths[user]], lengths[user : user + 1], None)
        louder = model.settings.dim**0.5  # what is read beside what is scored with
        vectors = [model.start + memory.last[0]]
        vectors += [model.items.level(place)[code] * louder for place, code in enumerate(prefix)]
        state = model.decoder(torch.stack(vectors)[None], memory)[0, -1]
        start = sum(model.trie.sizes[:level])
        logits = model.items.weight[1 + start : 1 + start + model.trie.sizes[level]] @ state
        allowed = children(codes, prefix)
        over = logits[allowed] if normalize == "catalogue" else logits
        return {code: float(logits[code] - over.logsumexp(0)) for code in allowed}

    return after


def enumerate_items(model: TIGER, codes: np.ndarray, normalize: str) -> np.ndarray:
    """(users, items) log probability of each item's code, -inf without one."""
    after = next_log_probabilities(model, codes, normalize)
    known: dict[tuple, dict[int, float]] = {}

    def probability(user: int, row: tuple[int, ...]) -> float:
        total = 0.0
        for level, code in enumerate(row):
            key = (user, row[:level])
            if key not in known:
                known[key] = after(*key)
            total += known[key][code]
        return total

    rows = [tuple(row) for row in codes[1:].tolist()]
    return np.array([[probability(u, row) if row[0] != ABSENT else -np.inf for row in rows] for u in range(4)])


def python_beam(model: TIGER, codes: np.ndarray, normalize: str, beams: int, user: int) -> dict[tuple, float]:
    """The `beams` best codes by an ordinary beam search."""
    after = next_log_probabilities(model, codes, normalize)
    found: dict[tuple, float] = {(): 0.0}
    for _ in range(codes.shape[1]):
        longer = {
            (*prefix, code): score + more
            for prefix, score in found.items()
            for code, more in after(user, prefix).items()
        }
        found = dict(sorted(longer.items(), key=lambda pair: -pair[1])[:beams])
    return found


CASES = {
    "collisions": ([5, 4, 6], 40, False),
    "distinct": ([6, 5], 20, True),
    "one level": ([12], 11, True),
    "one first code": ([1, 3, 40], 30, False),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    sizes, items, distinct = CASES[request.param]
    codes = random_codes(sizes, items, distinct=distinct)
    model = make_model(codes, sizes)
    rows, lengths = histories(items)
    with torch.no_grad():
        memory = model.read(rows, lengths, None)
    return model, codes, memory


@pytest.mark.parametrize("normalize", ["catalogue", "vocabulary"])
def test_exact_scores_are_those_of_every_item_alone(case, normalize):
    model, codes, memory = case
    expected = enumerate_items(model, codes, normalize)
    for rows in (1, 30, 100_000):
        with torch.no_grad():
            leaves = exact_scores(model, memory, model.trie, normalize, rows)
        found = model.trie.to_items(leaves, -torch.inf).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-9)
    if normalize == "catalogue":
        np.testing.assert_allclose(leaves.exp().sum(1), 1, atol=1e-9)
        shares = item_scores(leaves, model.trie)[:, np.flatnonzero(codes[1:, 0] != ABSENT)]
        np.testing.assert_allclose(shares.exp().sum(1), 1, atol=1e-9)


@pytest.mark.parametrize("normalize", ["catalogue", "vocabulary"])
def test_a_wide_beam_is_exact(case, normalize):
    model, _, memory = case
    with torch.no_grad():
        wide = beam_search(model, memory, model.trie, 1000, normalize)
        torch.testing.assert_close(wide, exact_scores(model, memory, model.trie, normalize), atol=1e-9, rtol=0)


@pytest.mark.parametrize("normalize", ["catalogue", "vocabulary"])
@pytest.mark.parametrize("beams", [1, 3, 8])
def test_the_best_of_a_beam_are_those_of_a_plain_search(case, normalize, beams):
    model, codes, memory = case
    with torch.no_grad():
        leaves = beam_search(model, memory, model.trie, beams, normalize)
        exact = exact_scores(model, memory, model.trie, normalize)
    reached = leaves > -torch.inf
    torch.testing.assert_close(leaves[reached], exact[reached], atol=1e-9, rtol=0)
    scores = model.trie.to_items(leaves, -torch.inf).numpy()
    for user in range(4):
        expected = python_beam(model, codes, normalize, beams, user)
        best = leaves[user].topk(len(expected)).values.numpy()
        np.testing.assert_allclose(best, list(expected.values()), atol=1e-9)
        for code, score in expected.items():
            items = np.flatnonzero((codes == code).all(1)) - 1
            np.testing.assert_allclose(scores[user, items], score, atol=1e-9)


def test_items_share_a_leaf_evenly_and_the_last_place_is_finite():
    codes = random_codes([5, 4, 6], 40)
    model = make_model(codes, [5, 4, 6])
    rows, lengths = histories(40)
    with torch.no_grad():
        leaves = beam_search(model, model.read(rows, lengths, None), model.trie, 3, "catalogue")
    scores = item_scores(leaves, model.trie)
    assert scores.shape == (4, 40)
    assert scores.isfinite().all()
    assert (scores[:, 7] == scores[:, 8]).all()
    raw = model.trie.to_items(leaves, -torch.inf)
    reached = raw > -torch.inf
    assert 0 < reached.sum() < reached.numel()
    for user in range(4):
        last = scores[user][~reached[user]]
        assert (last == last[0]).all()
        assert last[0] < scores[user][reached[user]].min()
        assert not reached[user, 2]  # no codes
    group = np.array([(codes[1:] == row).all(1).sum() for row in codes[1:]])
    np.testing.assert_allclose((raw - scores)[reached], np.log(np.broadcast_to(group, (4, 40))[reached]), atol=1e-9)


def test_candidates_are_counted_and_unreached_targets_share_the_mean_rank():
    """What the judge does with the scores: masks histories, counts what is left, ranks with ties."""
    leaves = torch.tensor([[-1.0, -2.0, -torch.inf, -torch.inf, -3.0]])
    codes = np.array([[ABSENT], [0], [1], [2], [3], [4]])
    model = make_model(codes, [5])
    scores = item_scores(leaves, model.trie)
    target = torch.tensor([3])
    mask_seen(scores, torch.tensor([[1, 0]]), target)
    assert torch.isfinite(scores).sum() == 4
    # items 2 and 5 are before it, item 4 ties with it
    assert ranks(scores, scores[0, target - 1]).tolist() == [3.5]


def with_share(scores: Tensor, special: Tensor, share: float, unreached: float | None = None) -> Tensor:
    """`keep_share` where items of the score `unreached` were not reached."""
    reached = torch.ones_like(scores, dtype=torch.bool) if unreached is None else scores != unreached
    return keep_share(scores, reached, special, share)


def place(scores: Tensor) -> list[int]:
    return scores[0].argsort(descending=True, stable=True).tolist()


def test_special_items_get_their_share_of_every_list():
    scores = -torch.arange(40.0)[None]
    special = torch.arange(40) >= 30
    scores[0, 35:] = -100.0  # not reached
    for share in (0.1, 0.2, 0.25, 0.5, 0.75, 0.9):
        kept = with_share(scores, special, share, -100.0)
        assert kept[0, :35].unique().numel() == 35, share  # nothing that was reached ties
        order = place(kept)
        for length in range(1, 41):
            given = sum(item >= 30 for item in order[:length])
            if length <= 20:
                # the c-th one stands at place floor(c / share)
                expected = sum(int(c / share + 1e-9) <= length for c in range(1, 6))
                assert given == expected >= min(5, int(share * length + 1e-9)), (share, length)
        assert [item for item in order if item < 30] == list(range(30))  # the others keep their order
        assert [item for item in order if 30 <= item < 35] == list(range(30, 35))
        assert set(order[35:]) == set(range(35, 40))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_special_items_follow_one_another_where_others_tie(dtype):
    scores = torch.cat([torch.full((6,), 5.0), torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])])[None].to(dtype)
    special = torch.arange(12) >= 6
    for share in (0.1, 0.6, 0.9):
        raised = with_share(scores, special, share)[0, 6:]
        assert (raised.diff() < 0).all()
        assert torch.equal(with_share(scores, special, share)[0, :6], scores[0, :6])
    through = with_share(scores - 5.0, special, 0.1)[0, 6:]
    assert (through < 0).all()  # just below 0
    assert (through.diff() < 0).all()


@pytest.mark.parametrize("unreached", [0, 2])
@pytest.mark.parametrize("last", [[-10.0], [-9.0, -10.0], [-9.0, -9.0], [-8.0, -8.0, -8.0]])
def test_the_lowest_special_items_are_raised_too(last, unreached):
    """What was reached is not told by the lowest score: where all was reached, an item of a share has it."""
    others = 10 - len(last)
    scores = -torch.arange(1, 11).float()[None]
    scores[0, others:] = torch.tensor(last)
    scores = torch.cat([scores, torch.full((1, unreached), -11.0)], 1)
    special = torch.arange(10 + unreached) >= others
    kept = with_share(scores, special, 0.5, -11.0)
    assert place(kept)[: 2 * len(last)] == [
        item for pair in zip(range(len(last)), range(others, 10), strict=True) for item in pair
    ]
    assert torch.equal(kept[:, 10:], scores[:, 10:])  # what was not reached stays


def test_many_special_items_cost_no_step_each():
    scores = torch.randn(8, 20_000)
    quick(lambda: with_share(scores, torch.arange(20_000) >= 5_000, 0.1), 2)


def test_special_items_that_are_high_already_stay():
    scores = -torch.arange(40.0)[None]
    special = torch.arange(40) < 3
    torch.testing.assert_close(with_share(scores, special, 0.1), scores)
    nothing = torch.zeros(40, dtype=torch.bool)
    assert torch.equal(with_share(scores, nothing, 0.1), scores)
    assert torch.equal(with_share(scores, ~nothing, 0.1), scores)


@pytest.mark.parametrize("levels", [2, 4, 9])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_no_special_item_comes_later_than_its_share_says_where_others_tie(levels, share):
    generator = torch.Generator().manual_seed(levels)
    scores = -torch.randint(0, levels, (64, 24), generator=generator).float()
    special = torch.arange(24) % 3 == 0
    scores[:, special] -= 0.5  # none ties with another one
    scores[:, 21:] = -20.0  # not reached
    kept = with_share(scores, special, share, -20.0)
    reached = [item for item in range(21) if special[item]]
    assert torch.equal(kept[:, ~special], scores[:, ~special])
    for before, after in zip(scores, kept, strict=True):
        order = sorted(reached, key=lambda item: (-float(before[item]), item))
        assert sorted(reached, key=lambda item: -float(after[item])) == order
        for number, item in enumerate(order, 1):
            others = int((after[~special] >= after[item]).sum())
            assert others <= number * (1 - share) / share + 1e-9, (number, others)
