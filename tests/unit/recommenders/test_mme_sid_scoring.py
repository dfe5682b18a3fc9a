"""Score heads and item tokens against the plain formulas of the paper, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.recommenders.item_tokens import CodeBranch, ItemTokens, RawBranch, unit_codebooks
from tessera.recommenders.score_heads import PopularityGate, ScoreHeads, popularity_features

ITEMS, WIDTH = 40, 6
COUNTS = torch.tensor([0, *([1, 3, 3, 8, 20] * 8)])


def branches() -> list[RawBranch]:
    torch.manual_seed(1)
    found = []
    for width in (3, 5):
        present = torch.rand(ITEMS + 1) > 0.2
        present[0] = False
        found.append(RawBranch(torch.randn(ITEMS + 1, width) * 4 + 2, present, WIDTH, standardize=False).double())
    return found


def heads(gate: bool, padding_class: bool = False, scale: float = 0.4) -> ScoreHeads:
    torch.manual_seed(2)
    mixture = PopularityGate(COUNTS, 3, 0.1) if gate else None
    return ScoreHeads(ITEMS, WIDTH, mixture, scale, padding_class).double()


def plain_scores(scores: ScoreHeads, raw: list[RawBranch], states: Tensor) -> Tensor:
    """(states, items + 1), a loop over items and heads."""
    logs = torch.log(COUNTS.double() + 1)
    features = ((logs - logs[1:].min()) / (logs[1:].max() - logs[1:].min())).clamp(min=0)
    columns = []
    for item in range(ITEMS + 1):
        terms = [states @ scores.vectors[item]]
        for branch in raw:
            weight, bias = branch.projection.weight, branch.projection.bias
            vector = weight @ branch.table[item] + bias if branch.present()[item] else branch.absent
            terms.append(scores.scale * (states @ vector))
        shares = torch.ones(3, dtype=torch.float64)
        if scores.gate is not None:
            x = features[item].float().double().reshape(1)
            shares = (scores.gate.layers(x) / scores.gate.temperature).softmax(0)
        columns.append(sum(share * term for share, term in zip(shares, terms, strict=True)))
    return torch.stack(columns, 1)


def gradients(loss: Tensor, *modules: torch.nn.Module) -> list[Tensor]:
    parameters = [p for module in modules for p in module.parameters()]
    return list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("gate", [True, False])
def test_mixed_items_and_projected_states_give_the_plain_scores_and_gradients(gate):
    raw, scores = branches(), heads(gate)
    states = torch.randn(7, WIDTH, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(7, ITEMS + 1, dtype=torch.float64)
    wanted = plain_scores(scores, raw, states)
    expected = [wanted, *torch.autograd.grad((wanted * weights).sum(), states), *gradients(
        (plain_scores(scores, raw, states) * weights).sum(), scores, *raw
    )]  # fmt: skip
    for ways in (lambda: states @ scores.catalogue(raw).T, lambda: scores.scores(states, raw)):
        found = [
            ways(),
            *torch.autograd.grad((ways() * weights).sum(), states),
            *gradients((ways() * weights).sum(), scores, *raw),
        ]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding_class", [True, False])
@pytest.mark.parametrize("count", [3, 60])  # fewer states than the model is wide, and more
def test_the_loss_is_the_plain_cross_entropy_whichever_way_is_cheaper(count, padding_class):
    raw, scores = branches(), heads(gate=True, padding_class=padding_class)
    states = torch.randn(count, WIDTH, dtype=torch.float64)
    targets = torch.randint(1, ITEMS + 1, (count,))
    calls = []
    expanded = scores.catalogue
    scores.catalogue = lambda given: calls.append(1) or expanded(given)  # type: ignore[method-assign]
    loss = scores.loss(states, targets, raw)
    assert bool(calls) == (count == 60)
    plain = plain_scores(scores, raw, states)
    wanted = F.cross_entropy(plain if padding_class else plain[:, 1:], targets - scores.first, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=1e-9)
    for one, other in zip(gradients(loss, scores, *raw), gradients(wanted, scores, *raw), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_the_gate_knows_popularity_alone_and_a_low_temperature_takes_one_head():
    torch.manual_seed(0)
    gate = PopularityGate(COUNTS, 4, 1e-3)
    shares = gate()
    assert shares.shape == (ITEMS + 1, 4)
    torch.testing.assert_close(shares.sum(1), torch.ones(ITEMS + 1))
    for count in COUNTS.unique():
        assert (shares[count == COUNTS] == shares[count == COUNTS][0]).all()
    assert len(gate.features) == len(COUNTS[1:].unique())
    assert shares.max(1).values.median() > 0.99
    gate.temperature = 100.0
    assert gate().max() < 0.26


def test_popularity_is_logarithmic_between_the_rarest_and_the_commonest_item():
    found = popularity_features(torch.tensor([0, 1, 3, 7]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.5, 1.0]))
    assert popularity_features(torch.tensor([0, 4, 4])).tolist() == [0.0, 0.0, 0.0]


# ---------------------------------------------------------------- tokens


def codes_and_books(width: int) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(3)
    codes = torch.randint(0, 4, (ITEMS + 1, 2))
    codes[[0, 5]] = -1
    return codes, [torch.randn(4, width), torch.randn(4, width) * 0.3]


@pytest.mark.parametrize("fusion", [None, [], [7, 9]])
@pytest.mark.parametrize("code_width", [WIDTH, 3])
def test_tokens_are_the_papers_formula(fusion, code_width):
    raw = branches()
    codes, books = codes_and_books(code_width)
    coded = [CodeBranch(codes, books, WIDTH).double() for _ in raw]
    tokens = ItemTokens(raw, coded, WIDTH, fusion).double()
    assert [layer.out_features for layer in tokens.fusion if isinstance(layer, torch.nn.Linear)] == (
        [2 * WIDTH, WIDTH] if fusion is None else [*fusion, WIDTH]
    )
    items = torch.tensor([9, 5, 1, 9, 0])
    found = tokens(items)
    for row, item in enumerate(items):
        parts = []
        for branch, code in zip(raw, coded, strict=True):
            parts.append(
                branch.projection.weight @ branch.table[item] + branch.projection.bias
                if branch.present()[item]
                else branch.absent
            )
            summed = sum(book[codes[item, level]] for level, book in enumerate(code.codebooks))
            parts.append(code.map(summed) if codes[item, 0] >= 0 else code.absent)
        hidden = torch.cat(parts)
        layers = [layer for layer in tokens.fusion if isinstance(layer, torch.nn.Linear)]
        for layer in layers[:-1]:
            hidden = torch.relu(layer(hidden))
        torch.testing.assert_close(found[row], F.gelu(layers[-1](hidden)))
    torch.testing.assert_close(tokens.catalogue(ITEMS), tokens(torch.arange(ITEMS + 1)))


def test_absent_items_are_learned_and_never_zeros():
    raw, (codes, books) = branches()[0], codes_and_books(WIDTH)
    absent = (~raw.present()).nonzero()[1:, 0]
    assert (raw(absent) == raw.absent).all()
    assert raw.absent.abs().min() > 0
    code = CodeBranch(codes, books, WIDTH)
    assert (code(torch.tensor([5])) == code.absent).all()
    assert code.absent.abs().min() > 0


def test_scaled_codebooks_keep_every_order_of_distances():
    codes, books = codes_and_books(5)
    scaled = unit_codebooks(codes, books)
    sums = [torch.stack([b[codes[1:5, level]] for level, b in enumerate(found)]).sum(0) for found in (books, scaled)]
    before, after = (torch.cdist(found, found) for found in sums)
    assert before.max() > 1
    torch.testing.assert_close(after, before * (after.max() / before.max()))
    known = codes[codes[:, 0] >= 0]
    mean_square = (scaled[0][known[:, 0]] + scaled[1][known[:, 1]]).square().mean()
    torch.testing.assert_close(mean_square, torch.tensor(1.0))


def test_a_standardised_table_has_mean_zero_and_unit_mean_square_over_its_items():
    present = torch.ones(ITEMS + 1, dtype=torch.bool)
    present[[0, 3]] = False
    branch = RawBranch(torch.randn(ITEMS + 1, 4) * 9 + 5, present, WIDTH, standardize=True)
    known = branch.table[present]
    torch.testing.assert_close(known.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(known.square().mean(), torch.tensor(1.0))
    assert (branch.table[~present] == 0).all()


def test_without_raw_tables_and_codes_there_is_no_item():
    with pytest.raises(ValueError, match="raw and codes"):
        ItemTokens([], [], WIDTH, None)
