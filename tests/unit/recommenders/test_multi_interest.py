"""Several vectors of a history: both networks against loops over numbers, what an end sees, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tessera.recommenders.multi_interest import (
    Capsules,
    MultiInterest,
    SelfAttentive,
    multi_interest,
    nearest,
    squash,
)
from tessera.settings.systems.eimf import EIMFSystem

DIM, LENGTH, NUMBER = 5, 7, 3
NETWORKS = ["attention", "capsules"]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def network(kind: str, **more: Any) -> MultiInterest:
    settings = {"recommender": "eimf", "network": kind, "dim": DIM, "inner_dim": 6, "vectors": NUMBER,
                "max_length": LENGTH, **more}  # fmt: skip
    torch.manual_seed(3)
    made = multi_interest(EIMFSystem.model_validate(settings)).double()
    with torch.no_grad():  # no part of the maths hides behind a small or a simple start
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


def causal(length: int) -> Tensor:
    return torch.ones(1, length, length, dtype=torch.bool).tril()


def softmax(x: Floats) -> Floats:
    shown = np.exp(x - x.max())
    return shown / shown.sum()


def normed(made: MultiInterest, vectors: Floats) -> Floats:
    """A layer norm of (K, dim), as its paper writes it."""
    if made.norm is None:
        return vectors
    centred = vectors - vectors.mean(1, keepdims=True)
    sizes = np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    return centred / sizes * made.norm.weight.detach().numpy() + made.norm.bias.detach().numpy()


def size_of(made: MultiInterest) -> float:
    """What items are multiplied by: as ComiRec has it, nothing."""
    return 1.0 if made.norm is None else float(np.sqrt(DIM))


def by_attention(made: SelfAttentive, seen: Floats) -> Floats:
    """(K, dim) of one history (n, dim), number by number."""
    weights = {name: value.detach().numpy() for name, value in made.state_dict().items()}
    vectors = []
    for k in range(NUMBER):
        logits = []
        for place, item in enumerate(seen):
            told = item * size_of(made)
            if "positions" in weights:
                told = told + weights["positions"][place]
            hidden = np.tanh(weights["hidden.weight"] @ told + weights["hidden.bias"])
            later = len(seen) - 1 - place
            logits.append(
                weights["attend.weight"][k] @ hidden + (weights["ages"][k, later] if "ages" in weights else 0)
            )
        mean = sum(share * item * size_of(made) for share, item in zip(softmax(np.array(logits)), seen, strict=True))
        vectors.append(weights["readout.weight"] @ mean if "readout.weight" in weights else mean)
    return normed(made, np.array(vectors))


def by_routing(made: Capsules, seen: Floats, rounds: int) -> Floats:
    """(K, dim) of one history (n, dim): dynamic routing as Sabour et al. write it, capsule by capsule."""
    maps = made.maps.detach().numpy()
    counted = np.ones((len(seen), NUMBER))
    if made.ages is not None:
        counted = np.exp(made.ages.detach().numpy()[:, : len(seen)][:, ::-1].T)
    seen = seen * size_of(made)
    agreement = np.zeros((len(seen), NUMBER))
    for number in range(rounds):
        capsules = np.zeros((NUMBER, DIM))
        for k in range(NUMBER):
            for place, item in enumerate(seen):
                capsules[k] += softmax(agreement[place])[k] * counted[place, k] * (item @ maps[k])
            size = np.linalg.norm(capsules[k])
            capsules[k] *= size / (1 + size**2)
        if number < rounds - 1:
            for k in range(NUMBER):
                for place, item in enumerate(seen):
                    agreement[place, k] += capsules[k] @ (item @ maps[k])
    return normed(made, capsules)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(("rounds", "order"), [(1, "ages"), (2, "none"), (3, "ages")])
def test_routing_is_that_of_loops(rounds: int, order: str, norm: bool) -> None:
    made = network("capsules", iterations=rounds, order=order, norm=norm)
    assert isinstance(made, Capsules)
    inputs = torch.randn(2, LENGTH, DIM, dtype=torch.float64)
    vectors = made(inputs, causal(LENGTH).expand(2, -1, -1)).detach().numpy()
    for row in range(2):
        for end in range(LENGTH):
            wanted = by_routing(made, inputs[row, : end + 1].numpy(), rounds)
            np.testing.assert_allclose(vectors[row, end], wanted, rtol=1e-6)


@pytest.mark.parametrize("form", [{}, {"norm": False}, {"norm": False, "readout": "none"}])
@pytest.mark.parametrize("order", ["ages", "positions", "none"])
def test_attention_is_that_of_loops(order: str, form: dict[str, Any]) -> None:
    made = network("attention", order=order, **form)
    assert isinstance(made, SelfAttentive)
    inputs = torch.randn(2, LENGTH, DIM, dtype=torch.float64)
    vectors = made(inputs, causal(LENGTH).expand(2, -1, -1)).detach().numpy()
    for row in range(2):
        for end in range(LENGTH):
            np.testing.assert_allclose(vectors[row, end], by_attention(made, inputs[row, : end + 1].numpy()))


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_an_end_does_not_see_changes_nothing(kind: str) -> None:
    made = network(kind)
    inputs = torch.randn(1, LENGTH, DIM, dtype=torch.float64)
    changed = inputs.clone()
    changed[:, 4:] = 1e3
    before, after = (made(each, causal(LENGTH)) for each in (inputs, changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("kind", NETWORKS)
def test_more_vectors_than_items(kind: str) -> None:
    made = network(kind, iterations=2)
    one = torch.randn(1, 1, DIM, dtype=torch.float64)
    vectors = made(one, causal(1))
    assert vectors.shape == (1, 1, NUMBER, DIM)
    assert torch.isfinite(vectors).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients(kind: str) -> None:
    # in one round nothing is felt without a gradient
    made = network(kind, iterations=1)
    inputs = torch.randn(1, 4, DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: made(each, causal(4)), (inputs,))
    made = network(kind, iterations=3)
    made(inputs, causal(4)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_squashed_vectors_keep_their_direction_and_have_a_length_below_one() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e3, 4e3]], dtype=torch.float64, requires_grad=True)
    short = squash(vectors)
    torch.testing.assert_close(short[0].norm(), torch.tensor(25 / 26, dtype=torch.float64))
    torch.testing.assert_close(short[0] / short[0].norm(), torch.tensor([0.6, 0.8], dtype=torch.float64))
    assert short[2].norm() < 1
    short.sum().backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_the_nearest_vector_is_that_of_the_largest_product() -> None:
    vectors, targets = torch.randn(6, NUMBER, DIM), torch.randn(6, DIM)
    for row, got in enumerate(nearest(vectors, targets)):
        products = [float(vector @ targets[row]) for vector in vectors[row]]
        assert torch.equal(got, vectors[row, int(np.argmax(products))])


def test_each_vector_starts_from_a_horizon_of_its_own() -> None:
    settings = EIMFSystem.model_validate({"recommender": "eimf", "dim": DIM, "vectors": NUMBER, "max_length": LENGTH})
    made = multi_interest(settings)
    assert made.ages is not None
    for k, horizon in enumerate((1, 2, 4)):
        assert made.ages[k].tolist() == [-age / horizon for age in range(LENGTH)]
