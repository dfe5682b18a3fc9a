"""Lists from the groups of the highest maxima against `topk` of whole rows; tiles against one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tessera.data.dataset import Cases
from tessera.evaluation import ranking
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import Ranked, rank_cases
from tessera.settings.evaluation import Evaluation


@pytest.mark.parametrize("items", [1, 20, 21, 335, 336, 500, 1009, 4000])
@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("levels", [None, 1, 7, 300], ids=["all different", "all equal", "many equal", "some equal"])
def test_top_is_topk_to_the_choice_among_equals(items: int, k: int, levels: int | None) -> None:
    draw = np.random.default_rng(items + k)
    size = (13, items)
    scores = draw.normal(size=size) if levels is None else draw.integers(0, levels, size) / 7
    scores[draw.random(size) < 0.2] = -np.inf
    scores[4, 2:] = -np.inf
    given = torch.from_numpy(scores.astype(np.float32))
    wanted = min(k, items)
    expected, made = torch.topk(given, wanted, dim=1), ranking.top(given, wanted)
    assert torch.equal(made[0], expected.values)
    assert torch.equal(made[1], expected.indices)
    # rows apart in memory, as heuristics give them
    beside = torch.cat([torch.full((13, 1), 99.0), given], dim=1)[:, 1:]
    assert torch.equal(ranking.top(beside, wanted)[1], expected.indices)


def test_rows_of_few_scores_are_not_listed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the lowest score stand fewer items than are asked for: every column would be one of the best."""
    given = torch.full((6, 50_000), -torch.inf)
    given[:, ::9000] = torch.arange(6.0)[:, None] + torch.arange(6.0)
    given[3] = torch.from_numpy(np.random.default_rng(0).permutation(50_000).astype(np.float32))  # as rows are
    listed: list[int] = []

    def left(scores: torch.Tensor, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, columns, few = kept(scores, wanted)
        listed.append(len(rows))
        assert few.tolist() == [False, False, False, True, False, False]
        return rows, columns, few

    kept = ranking._left
    monkeypatch.setattr(ranking, "_left", left)
    values, columns = ranking.top(given, 20)
    expected = torch.topk(given, 20, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(columns, expected.indices)
    assert listed[0] <= 4 * 21


class Scorer:
    """Scores by the last item; with `lowest`, some items score minus infinity."""

    max_history = None

    def __init__(self, items: int, lowest: bool, levels: int) -> None:
        self.matrix = np.random.default_rng(0).integers(0, levels, (items + 1, items)).astype(np.float32)
        if lowest:
            self.matrix[:, ::7] = -np.inf

    def __call__(self, histories: Histories) -> torch.Tensor:
        last = histories.items[torch.arange(len(histories)), histories.lengths - 1]
        return torch.from_numpy(self.matrix[last.numpy()].copy())


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("levels", [9, 10**6])
def test_tiles_give_what_one_gives(lowest: bool, mask: bool, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, items, users = np.random.default_rng(1), 600, 70
    lengths = draw.integers(0, 12, users)
    history = draw.integers(1, items + 1, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    targets = draw.integers(1, items + 1, users).astype(np.int32)
    targets[5] = history[offsets[5]] if lengths[5] else targets[5]
    cases = Cases(np.arange(1, users + 1, dtype=np.int32), targets, offsets, history)
    scorer, settings = Scorer(items, lowest, levels), Evaluation(mask_seen=mask)
    made: list[Ranked] = []
    for tile in (2**18, 5 * items, 1):
        monkeypatch.setattr(ranking, "_TILE", tile)
        made.append(rank_cases(scorer, cases, settings, recommend=20))
    for name in ("ranks", "scores", "candidates", "recommended"):
        for other in made[1:]:
            np.testing.assert_array_equal(getattr(made[0], name), getattr(other, name))
    for case in range(users):  # the candidates of a mask are what it leaves, also of the lowest scores
        left = items - len(set(cases.history(case))) if mask else items
        assert made[0].candidates[case] == left
        assert not lowest or not (np.array(made[0].recommended[case]) % 7 == 1).any()
