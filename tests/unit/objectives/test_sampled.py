import math

import pytest
import torch
import torch.nn.functional as F

from tessera.objectives import sampled
from tessera.objectives.catalogue import catalogue_loss
from tessera.settings.losses.bce import BCE
from tessera.settings.losses.bpr import BPR
from tessera.settings.losses.gbce import GBCE
from tessera.settings.losses.sampled_softmax import SampledSoftmax


def test_sampled_softmax_with_every_item_once_is_the_full_softmax():
    scores = torch.randn(6, 11, dtype=torch.float64)
    targets = torch.tensor([0, 3, 10, 4, 4, 7])
    collision = targets[:, None] == torch.arange(11)
    positive = scores.gather(1, targets[:, None])[:, 0]
    found = sampled.sampled_softmax(positive, scores, torch.zeros(11, dtype=torch.float64), collision)
    torch.testing.assert_close(found, F.cross_entropy(scores, targets, reduction="sum"))


@pytest.mark.parametrize("distribution", ["uniform", "popularity", "mixed"])
def test_log_q_makes_many_negatives_approach_the_full_softmax(distribution):
    torch.manual_seed(0)
    popularity = torch.tensor([0, 50, 20, 10, 5, 5, 2, 2, 1, 1, 1])
    vectors = torch.randn(11, 4)
    states, targets = torch.randn(8, 4), torch.randint(1, 11, (8,))
    loss = catalogue_loss(SampledSoftmax(negatives=20_000, distribution=distribution), popularity)
    found = loss(states, vectors, targets, torch.arange(8), torch.zeros(8, 1, dtype=torch.long))
    expected = F.cross_entropy(states @ vectors[1:].T, targets - 1, reduction="sum")
    assert found.item() == pytest.approx(expected.item(), rel=0.03)


def test_gbce_without_calibration_is_bce_and_fully_calibrated_weighs_by_the_sampling_rate():
    assert sampled.gbce_beta(16, 1001, 0.0) == pytest.approx(1.0)
    assert sampled.gbce_beta(16, 1001, 1.0) == pytest.approx(16 / 1000)
    positive, negative = torch.tensor([0.3, -1.0]), torch.tensor([[0.1, 2.0], [-0.5, 0.0]])
    expected = F.binary_cross_entropy_with_logits(
        torch.cat([positive[:, None], negative], 1), torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]), reduction="sum"
    )
    torch.testing.assert_close(sampled.gbce(positive, negative, 1.0), expected)


def test_gbce_raises_the_positive_probability_to_beta():
    positive, negative = torch.tensor([0.7]), torch.tensor([[0.2]])
    beta = 0.25
    expected = -math.log(torch.sigmoid(positive).item() ** beta) - math.log(1 - torch.sigmoid(negative).item())
    assert sampled.gbce(positive, negative, beta).item() == pytest.approx(expected, rel=1e-5)


def test_bpr_is_the_log_sigmoid_of_the_difference():
    found = sampled.bpr(torch.tensor([1.0]), torch.tensor([[0.0, 2.0]]))
    expected = -(math.log(1 / (1 + math.exp(-1))) + math.log(1 / (1 + math.exp(1)))) / 2
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_pairwise_losses_do_not_count_a_user_who_has_seen_everything():
    loss = catalogue_loss(BPR(), torch.ones(4))
    value = loss(
        torch.randn(2, 3), torch.randn(4, 3), torch.tensor([1, 2]), torch.tensor([0, 0]), torch.tensor([[1, 2, 3]])
    )
    assert value.item() == 0.0


@pytest.mark.parametrize("shared", [True, False])
def test_gbce_through_the_door_has_gradients(shared):
    torch.manual_seed(0)
    vectors = torch.randn(21, 4, requires_grad=True)
    loss = catalogue_loss(GBCE(negatives=8, shared=shared), torch.ones(21))
    loss(
        torch.randn(3, 4), vectors, torch.tensor([1, 5, 20]), torch.arange(3), torch.ones(3, 1, dtype=torch.long)
    ).backward()
    assert vectors.grad[[1, 5, 20]].abs().sum() > 0
    assert vectors.grad[0].abs().sum() == 0


@pytest.mark.parametrize("items", [1, 2, 17])
def test_gbce_beta_stays_within_its_range_in_tiny_catalogues(items):
    for calibration in (0.0, 0.75, 1.0):
        assert sampled.gbce_beta(256, items, calibration) == pytest.approx(1.0)


@pytest.mark.parametrize("settings", [BPR(negatives=8), BCE(negatives=8)])
def test_a_target_is_no_negative_of_a_prefix(settings: BPR | BCE) -> None:
    """A window holds its targets, a prefix does not; of two items none is left for a negative in either."""
    torch.manual_seed(0)
    loss = catalogue_loss(settings, torch.tensor([0, 1, 1]))
    states, vectors = torch.randn(1, 4), torch.randn(3, 4)
    target, owner = torch.tensor([2]), torch.tensor([0])
    prefix = loss(states, vectors, target, owner, torch.tensor([[1]]))
    window = loss(states, vectors, target, owner, torch.tensor([[1, 2]]))
    torch.testing.assert_close(prefix, window)
    positive = F.softplus(-states[0] @ vectors[2]) if settings.kind == "bce" else torch.zeros(())
    torch.testing.assert_close(prefix, positive)


@pytest.mark.parametrize("settings", [BPR(negatives=50), BCE(negatives=50)])
def test_pairwise_negatives_are_outside_of_history_and_target(settings: BPR | BCE) -> None:
    torch.manual_seed(0)
    loss = catalogue_loss(settings, torch.ones(16))
    histories = torch.randint(0, 16, (7, 12))
    owners, targets = torch.randint(0, 7, (40,)), torch.randint(1, 16, (40,))
    ids, collision = loss._draw(targets, owners, histories)
    for row, owner, target, out in zip(ids, owners, targets, collision, strict=True):
        taken = {*histories[owner].tolist(), int(target)}
        assert [int(item) in taken for item in row] == out.tolist()
        assert ((row >= 1) & (row <= 15)).all()
    assert 0 < collision.float().mean() < 0.2  # redrawn five times
