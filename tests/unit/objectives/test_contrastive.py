"""The soft-target contrastive loss against worked numbers and a loop over its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tessera.objectives.contrastive import retrieval_accuracy, session_contrastive, soft_contrastive


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def by_definition(x: Tensor, y: Tensor, t: float, settings: dict[str, Any]) -> float:
    """The loss as it is written, one number after the other."""
    if settings.get("normalize"):
        x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    n = len(x)
    dot = lambda a, b: float((a * b).sum())  # noqa: E731
    factor = t if settings.get("target_temperature") == "multiply" else 1 / t
    S = [softmax([(dot(x[i], x[j]) + dot(y[i], y[j])) / 2 * factor for j in range(n)]) for i in range(n)]
    if settings.get("targets") == "identity":
        S = [[float(i == j) for j in range(n)] for i in range(n)]
    total = 0.0
    for i in range(n):
        there = softmax([dot(x[i], y[j]) / t for j in range(n)])
        back = softmax([dot(y[i], x[j]) / t for j in range(n)])
        total += -sum(S[i][j] * math.log(there[j]) for j in range(n)) / 2
        total += -sum(S[j][i] * math.log(back[j]) for j in range(n)) / 2
    return total / n


SETTINGS: list[dict[str, Any]] = [
    {"target_temperature": convention, "normalize": normalize, "targets": targets}
    for convention in ("divide", "multiply")
    for normalize in (False, True)
    for targets in ("attached", "detached", "identity")
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_against_its_definition(settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    for t in (0.4, 3.0):
        assert float(soft_contrastive(x, y, t, **settings)) == pytest.approx(
            by_definition(x, y, t, settings), rel=1e-12
        )


def test_three_items_by_hand() -> None:
    # X = Y = unit vectors times 1, 1, 2: products are diag(1, 1, 4); t = 2
    x = torch.diag(torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))
    e = math.exp
    # logits diag(.5, .5, 2); both softmaxes of a row are alike, the logits being symmetric
    logs = [(0.5 - math.log(e(0.5) + 2), -math.log(e(0.5) + 2)), (2 - math.log(e(2) + 2), -math.log(e(2) + 2))]

    def expected(scale: float) -> float:
        """Targets softmax of scale * diag(1, 1, 4)."""
        total = 0.0
        own = [e(scale) / (e(scale) + 2), e(scale) / (e(scale) + 2), e(4 * scale) / (e(4 * scale) + 2)]
        kind = [0, 0, 1]
        for i in range(3):
            for j in range(3):
                share = own[i] if i == j else (1 - own[i]) / 2
                there = logs[kind[i]][i != j]
                back = logs[kind[j]][i != j]  # column j's softmax at row i
                total -= share * (there + back) / 2
        return total / 3

    assert float(soft_contrastive(x, x, 2.0, "divide")) == pytest.approx(expected(0.5), rel=1e-12)
    assert float(soft_contrastive(x, x, 2.0, "multiply")) == pytest.approx(expected(2.0), rel=1e-12)
    assert expected(0.5) != pytest.approx(expected(2.0), rel=1e-2)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 3, dtype=torch.float64)
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, c: soft_contrastive(a, b, c), (x.requires_grad_(), y.requires_grad_(), t)
    )


def test_detached_targets_keep_the_value_and_change_the_gradient() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 3)
    gradients = {}
    for targets in ("attached", "detached"):
        leaf = x.clone().requires_grad_()
        soft_contrastive(leaf, y, 1.0, targets=targets).backward()
        gradients[targets] = leaf.grad
    assert not torch.allclose(gradients["attached"], gradients["detached"])


def test_identity_targets_are_infonce() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 6, 3)
    labels = torch.arange(6)
    logits = x @ y.T / 0.5
    expected = (
        torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)
    ) / 2
    torch.testing.assert_close(soft_contrastive(x, y, 0.5, targets="identity"), expected)


def test_temperature_is_learned_and_does_not_vanish() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(1.0, requires_grad=True)
    soft_contrastive(x, x + 0.1, t).backward()
    assert t.grad is not None
    assert float(t.grad) != 0
    assert float(soft_contrastive(x, x, -5.0)) == float(soft_contrastive(x, x, 1e-3))


def test_half_precision_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    x, y = 40 * torch.randn(2, 6, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = soft_contrastive(x, y, 1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, soft_contrastive(x, y, 1.0))
    # products beyond 65504 overflow float16
    assert torch.isfinite(soft_contrastive(10 * x.half(), 10 * y.half(), 1.0))


def test_retrieval_accuracy() -> None:
    x = torch.eye(4)
    assert float(retrieval_accuracy(x, x)) == 1.0
    assert float(retrieval_accuracy(x, x[[1, 0, 2, 3]])) == 0.5
    long = torch.tensor([[1.0, 0.0], [2.0, 2.0]])
    short = torch.tensor([[1.0, 0.0], [0.2, 0.2]])
    # by dot products a long vector wins everywhere
    assert float(retrieval_accuracy(long, short)) == 0.5
    assert float(retrieval_accuracy(long, short, normalize=True)) == 1.0
    # a row that is no wrong match does not stand in the way of the right one
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 1] = same[0, 0] = True
    assert float(retrieval_accuracy(x, x[[1, 0, 2, 3]], same=same)) == 0.75


@pytest.mark.parametrize("masked", [True, False])
def test_session_contrastive_is_its_definition(masked: bool) -> None:
    torch.manual_seed(0)
    queries, documents = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    clicked = torch.tensor([True, False, True, True, False, True])
    negative = torch.tensor([True, True, True, True, False, True])
    sessions, items = torch.tensor([1, 1, 2, 3, 3, 4]), torch.tensor([5, 6, 5, 7, 8, 9])
    labels = (sessions, items) if masked else (None, None)
    total, count = session_contrastive(queries, documents, clicked, negative, 50.0, *labels)
    expected = 0.0
    for i in range(6):
        if not clicked[i]:
            continue
        cosines = [float(torch.cosine_similarity(queries[i].detach(), document, dim=0)) for document in documents]
        against = [
            j for j in range(6)
            if j == i or (negative[j] and not (masked and (sessions[i] == sessions[j] or items[i] == items[j])))
        ]  # fmt: skip
        expected -= 50 * cosines[i] - math.log(sum(math.exp(50 * cosines[j]) for j in against))
    assert int(count) == 4
    assert float(total) == pytest.approx(expected, rel=1e-5)
    total.backward()
    assert torch.isfinite(queries.grad).all()  # type: ignore[arg-type]


def test_one_session_alone_has_nothing_to_learn() -> None:
    queries, documents = torch.randn(3, 4), torch.randn(3, 4)
    every = torch.ones(3, dtype=torch.bool)
    total, count = session_contrastive(queries, documents, every, every, 50.0, torch.tensor([7, 7, 7]))
    assert (float(total), int(count)) == (0.0, 3)
    total, count = session_contrastive(queries, documents, ~every, every, 50.0)
    assert (float(total), int(count)) == (0.0, 0)
