"""Rewards and advantages against the published values and hand examples."""

from __future__ import annotations

import math

import pytest
import torch

from tessera.embedding.crrl_published import batch_advantages
from tessera.embedding.rewards import (
    degenerate,
    expected_ranks,
    group_advantages,
    ndcg_reward,
    rank_reward,
    softmax_reward,
    supervised_loss,
)  # fmt: skip


def test_published_rewards_of_the_ten_ranks() -> None:
    similarity = torch.zeros(10, 1, 10)
    for rank in range(10):
        similarity[rank, 0, 1 : rank + 1] = 1.0
        similarity[rank, 0, rank + 1 :] = -1.0
    weights = torch.zeros(10, 10)
    weights[:, 0] = 1.0
    told = [0.5, 0.3869, 0.3333, 0.3010, 0.2789, 0.2626, 0.25, 0.2398, 0.2314, 0.2242]
    assert rank_reward(similarity, weights)[:, 0].tolist() == pytest.approx(told, abs=5e-5)


def test_several_positives_count_by_their_shares() -> None:
    similarity = torch.tensor([[[3.0, 1.0, 2.0, 0.0]]])
    weights = torch.tensor([[0.75, 0.25, 0.0, 0.0]])
    expected = 0.75 * 0.5 + 0.25 / (1 + math.log2(4))
    assert rank_reward(similarity, weights).item() == pytest.approx(expected)


def test_the_supervised_loss_is_cross_entropy_and_a_temperature_feels_how_close_vectors_lie() -> None:
    similarity = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.8, 0.3]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(similarity / 0.1, weights, reduction="none")
    torch.testing.assert_close(supervised_loss(similarity, weights, 0.1), expected)
    closer = 0.9 + similarity / 100
    torch.testing.assert_close(supervised_loss(closer, weights), supervised_loss(similarity, weights))
    assert (supervised_loss(closer, weights, 0.1) - expected).abs().min() > 0.1


def test_ndcg_of_neighbours_is_that_of_its_definition() -> None:
    similarity = torch.tensor([[[3.0, 1.0, 2.0, 0.0], [3.0, 2.0, 1.0, 0.0]], [[0.1, 0.5, 0.7, 0.9]] * 2])
    weights = torch.tensor([[0.75, 0.25, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    ideal = 0.75 + 0.25 / math.log2(3)
    expected = [[(0.75 + 0.25 / math.log2(4)) / ideal, 1.0], [1 / math.log2(5)] * 2]
    torch.testing.assert_close(ndcg_reward(similarity, weights), torch.tensor(expected))


def test_equal_similarities_share_their_ranks_wherever_they_stand() -> None:
    assert expected_ranks(torch.zeros(4)).tolist() == [1.5] * 4
    assert expected_ranks(torch.tensor([1.0, 2.0, 1.0, 0.0])).tolist() == [1.5, 0.0, 1.5, 3.0]
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randint(0, 3, (50, 6), generator=generator).float()
    order = torch.randperm(6, generator=generator)
    assert torch.equal(expected_ranks(similarity)[:, order], expected_ranks(similarity[:, order]))


def test_softmax_reward_is_the_share_of_the_positives_and_moves_without_ranks() -> None:
    similarity = torch.tensor([[[2.0, 1.0, 0.0], [2.1, 1.0, 0.0]]])
    weights = torch.tensor([[0.5, 0.5, 0.0]])
    rewards = softmax_reward(similarity, weights)
    scale = (similarity[0, 0].std(correction=0) + similarity[0, 1].std(correction=0)) / 2
    assert rewards[0, 0].item() == pytest.approx((similarity[0, 0] / scale).softmax(0)[:2].sum().item())
    assert rewards[0, 1] > rewards[0, 0]
    assert rank_reward(similarity, weights).unique().numel() == 1
    torch.testing.assert_close(softmax_reward(similarity * 100, weights), rewards)
    assert softmax_reward(torch.zeros(1, 2, 3), weights).tolist() == [[pytest.approx(2 / 3)] * 2]


def test_equal_rewards_in_every_group_give_no_advantage() -> None:
    rewards = torch.tensor([[0.3869] * 8, [0.5] * 8, [0.1] * 8])
    assert not group_advantages(rewards).any()
    assert degenerate(rewards).all()
    mixed = torch.tensor([[0.5, 0.25], [0.3, 0.3]])
    found = group_advantages(mixed)
    assert found[0].tolist() == pytest.approx([0.125 / (0.1767767 + 1e-4), -0.125 / (0.1767767 + 1e-4)])
    assert not found[1].any()
    assert degenerate(mixed).tolist() == [False, True]


def test_published_advantages_by_hand() -> None:
    rewards = torch.tensor([[0.5, 0.4], [0.3, 0.3]])
    # b = (0.5 + 0.3) / 2 = 0.4; R - b = 0.1, 0, -0.1, -0.1; norm = sqrt(0.03)
    norm = math.sqrt(0.03) + 1e-6
    expected = torch.tensor([[0.1, 0.0], [-0.1, -0.1]]) / norm
    torch.testing.assert_close(batch_advantages(rewards), expected, atol=1e-6, rtol=0)


def test_copies_of_the_positive_are_no_reason_to_stop() -> None:
    """All candidates alike, but for rounding: an even share, and finite gradients."""
    similarity = torch.full((1, 3, 4), 100.0).requires_grad_()
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    rounded = similarity + torch.tensor([0.0, 7e-6, 0.0, 0.0])
    reward = softmax_reward(rounded, weights)
    assert reward.tolist() == [pytest.approx([0.25] * 3, abs=1e-4)]
    reward.sum().backward()
    assert similarity.grad is not None
    assert torch.isfinite(similarity.grad).all()
