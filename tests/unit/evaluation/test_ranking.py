import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from tessera.evaluation.ranking import ScoreError, check_scores, mask_seen, ranks


@pytest.mark.parametrize(("ties", "method"), [("mean", "average"), ("pessimistic", "max")])
def test_ranks_agree_with_scipy_also_where_scores_tie(ties, method):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 7, (50, 23)).astype(np.float32)
    targets = rng.integers(0, 23, 50)
    expected = rankdata(-scores, method, axis=1)[np.arange(50), targets]
    chosen = torch.from_numpy(scores[np.arange(50), targets])
    found = ranks(torch.from_numpy(scores), chosen, ties)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_constant_scorer_ranks_every_target_in_the_middle():
    found = ranks(torch.zeros(2, 101), torch.zeros(2))
    assert found.tolist() == [51.0, 51.0]


def test_masking_takes_out_the_history_but_never_the_target():
    scores = torch.arange(6.0).repeat(2, 1)
    mask_seen(scores, torch.tensor([[6, 5, 0], [2, 3, 2]]), torch.tensor([6, 1]))
    assert scores[0].tolist() == [0, 1, 2, 3, -torch.inf, 5]
    assert scores[1].tolist() == [0, -torch.inf, -torch.inf, 3, 4, 5]


def test_nan_names_the_user_and_the_item():
    scores = torch.zeros(2, 3)
    scores[1, 2] = torch.nan
    with pytest.raises(ScoreError, match=r"item 3 for user 42 is NaN"):
        check_scores(scores, torch.tensor([7, 42]))


def test_infinite_scores_are_not_nan():
    scores = torch.zeros(1, 4)
    scores[0, 1], scores[0, 2] = torch.inf, -torch.inf  # their sum is NaN
    check_scores(scores, torch.tensor([1]))
    assert ranks(scores, torch.tensor([0.0])).item() == 2.5
