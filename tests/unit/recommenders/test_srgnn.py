"""SR-GNN against the paper's equations written out a history at a time; and that no state sees what it predicts."""

from itertools import pairwise

import pytest
import torch

from tessera.recommenders.backbones.srgnn import SRGNN, nodes
from tessera.settings.backbones.srgnn import SRGNNSettings

VECTORS = torch.randn(12, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def made(**keys) -> SRGNN:
    torch.manual_seed(3)
    return SRGNN(SRGNNSettings(dim=8, max_length=9, **keys)).double().eval()


def by_the_paper(model: SRGNN, history: list[int]) -> torch.Tensor:
    """Equations 1 to 7, over the unique items of one history."""
    unique = sorted(set(history))
    place = {item: number for number, item in enumerate(unique)}
    edges = torch.zeros(len(unique), len(unique), dtype=torch.float64)
    for before, after in pairwise(history):
        edges[place[before], place[after]] += 1
    out = torch.stack([row / row.sum() if row.sum() else row for row in edges])
    into = torch.stack([row / row.sum() if row.sum() else row for row in edges.T])
    v = model.norm_in(VECTORS[unique])
    for _ in range(model.steps):
        a = torch.cat([into @ model.incoming(v), out @ model.outgoing(v)], 1)
        w, u = model.cell.weight_ih.chunk(3), model.cell.weight_hh.chunk(3)
        b, c = model.cell.bias_ih.chunk(3), model.cell.bias_hh.chunk(3)
        reset = torch.sigmoid(a @ w[0].T + b[0] + v @ u[0].T + c[0])
        update = torch.sigmoid(a @ w[1].T + b[1] + v @ u[1].T + c[1])
        new = torch.tanh(a @ w[2].T + b[2] + reset * (v @ u[2].T + c[2]))
        v = (1 - update) * new + update * v
    local = v[place[history[-1]]]
    whole = torch.zeros(8, dtype=torch.float64)
    for item in history:
        alpha = model.attention(torch.sigmoid(model.of_last(local) + model.of_item(v[place[item]])))
        whole = whole + alpha * v[place[item]]
    return model.norm(model.merge(torch.cat([local, whole])))


@pytest.mark.parametrize("steps", [1, 3])
def test_states_are_those_of_the_paper(steps: int) -> None:
    model = made(steps=steps)
    histories = torch.tensor([[3, 5, 3, 5, 7, 3], [2, 2, 2, 0, 0, 0], [4, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    states = model.encode(histories, torch.tensor([6, 3, 1, 6]), VECTORS)
    for row, history in zip(states, histories.tolist(), strict=True):
        torch.testing.assert_close(row, by_the_paper(model, [item for item in history if item]))


def test_nodes_are_the_first_places() -> None:
    found = nodes(torch.tensor([[3, 5, 3, 0]]))[0].int().tolist()
    assert found == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_no_state_sees_what_comes_later() -> None:
    """Whatever the later items are, also such as stand earlier too and would close a circle of the graph."""
    model = made(steps=3)
    first = model.examples(torch.tensor([[3, 5, 3, 7, 8, 9]]), VECTORS)
    for later in ([3, 3, 5], [5, 7, 7], [11, 1, 2], [0, 0, 0]):
        other = model.examples(torch.tensor([[3, 5, 3, *later]]), VECTORS)
        torch.testing.assert_close(other.states[:2], first.states[:2], rtol=0, atol=0)
    assert not torch.allclose(first.states[2], other.states[1])


def test_a_graph_of_the_whole_window_would_leak() -> None:
    """What the graphs of prefixes are for: with the later items in it, the state at the first item is another."""
    model = made()
    states = [
        model._propagated(model.norm_in(VECTORS[history]), nodes(history).double())[0, 0]
        for history in (torch.tensor([[3, 5, 7]]), torch.tensor([[3, 6, 7]]))
    ]
    assert not torch.allclose(*states)


def test_the_last_target_alone() -> None:
    histories = torch.tensor([[3, 7, 1, 0], [4, 4, 9, 10], [5, 0, 0, 0]])
    every, last = (made(targets=targets).examples(histories, VECTORS) for targets in ("all", "last"))
    assert every.targets.tolist() == [7, 1, 4, 9, 10]
    assert last.targets.tolist() == [1, 10]
    assert last.owners.tolist() == [0, 1]
    torch.testing.assert_close(last.states, every.states[[1, 4]])


def test_every_weight_learns() -> None:
    model = made().train()
    vectors = VECTORS.clone().requires_grad_()
    model.examples(torch.tensor([[3, 5, 3, 7, 8, 9], [1, 2, 0, 0, 0, 0]]), vectors).states.pow(2).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in [*model.parameters(), vectors])
