"""Sequences of a table against their definitions over single events, and RankMixer against its."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tessera.ctr.attention import age_buckets
from tessera.ctr.banked import Decoder, Events, similarities
from tessera.ctr.mixing import RankMixer, mix

HISTORIES = torch.tensor([[3, 1, 3, 2, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
AGES = torch.tensor([[900, 90, 9, 1, 0], [50, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([4, 1, 0])


def events(size: int) -> Events:
    return Events.latest(HISTORIES, AGES, LENGTHS, size)


def test_the_latest_events_come_first() -> None:
    last = events(3)
    assert last.at[0].tolist() == [2, 3, 1]
    assert last.ages[0].tolist() == age_buckets(torch.tensor([1, 9, 90])).tolist()
    assert last.valid.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert events(9).at.shape == (3, 5)


def decoded_alone(model: Decoder, query: Tensor, vectors: Tensor, ages: Tensor) -> Tensor:
    """The decoder over single events (events, width), head by head."""
    heads, dim = model.heads, query.shape[0] // model.heads
    for number, norm in enumerate(model.norms):
        if not len(vectors):
            continue
        tokens = vectors + model.ages(ages)
        asked, keys, values = (
            layers[number](part)  # type: ignore[operator]
            for layers, part in ((model.queries, query), (model.keys, tokens), (model.values, tokens))
        )
        # the table's and the age's values each have the layer's bias
        values = values + model.values[number].bias
        mixed = []
        for head in range(heads):
            place = slice(head * dim, (head + 1) * dim)
            weights = (keys[:, place] @ asked[place] / math.sqrt(dim)).softmax(0)
            mixed.append(weights @ values[:, place])
        query = query + model.networks[number](norm(model.outs[number](torch.cat(mixed))))  # type: ignore[operator]
    return query


def test_the_decoder_is_attention_over_single_events() -> None:
    torch.manual_seed(0)
    model, table, queries = Decoder(8, 2, 2), torch.randn(4, 8), torch.randn(3, 8)
    model.ages.weight.data.normal_()
    found = model(queries, table, events(4))
    for row, length in enumerate(LENGTHS.tolist()):
        items, ages = HISTORIES[row, :length], age_buckets(AGES[row, :length])
        expected = decoded_alone(model, queries[row], table[items], ages)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(found[2], queries[2])  # nothing to read


def test_events_that_all_rows_share_are_given_once() -> None:
    torch.manual_seed(0)
    model, table, queries = Decoder(8, 2, 2), torch.randn(4, 8), torch.randn(5, 8)
    one = Events.latest(HISTORIES[:1], AGES[:1], LENGTHS[:1], 4)
    many = Events.latest(HISTORIES[:1].expand(5, -1), AGES[:1].expand(5, -1), LENGTHS[:1].expand(5), 4)
    torch.testing.assert_close(model(queries, table, one), model(queries, table, many))
    known = torch.tensor([False, True, True, True])
    for first, second in zip(*(similarities(queries, table, known, each, 6) for each in (one, many)), strict=True):
        torch.testing.assert_close(first, second)


def test_similarities_are_cosines_by_time_and_sorted() -> None:
    torch.manual_seed(1)
    table, targets = torch.randn(4, 5), torch.randn(3, 5)
    known = torch.tensor([False, True, False, True])
    by_time, ranked = similarities(targets, table, known, events(4), 6)
    assert by_time.shape == ranked.shape == (3, 6)
    for row, length in enumerate(LENGTHS.tolist()):
        cosines = [
            float(torch.cosine_similarity(targets[row], table[item], dim=0)) if known[item] else 0.0
            for item in reversed(HISTORIES[row, :length].tolist())
        ]
        real = sorted((c for c in cosines if c), reverse=True)
        torch.testing.assert_close(by_time[row], torch.tensor(cosines + [0.0] * (6 - length)))
        torch.testing.assert_close(ranked[row], torch.tensor(real + [0.0] * (6 - len(real))))
    assert (ranked[0].diff() <= 0)[:2].all()


def test_mixing_deals_the_parts_of_tokens() -> None:
    states = torch.arange(2 * 3 * 6).view(2, 3, 6)
    mixed = mix(states)
    for token in range(3):
        parts = [states[:, other, 2 * token : 2 * token + 2] for other in range(3)]
        assert torch.equal(mixed[:, token], torch.cat(parts, 1))
    assert torch.equal(mix(mixed), states)


def test_rank_mixer_is_its_definition() -> None:
    torch.manual_seed(0)
    model = RankMixer([4, 2, 3], 8, 2, 2)
    assert model.width == 9  # a multiple of the tokens
    features = [torch.randn(5, width) for width in (4, 2, 3)]
    states = [layer(part) for layer, part in zip(model.project, features, strict=True)]
    for mixed, network, thought in zip(model.mixed, model.networks, model.thought, strict=True):
        dealt = [torch.cat([state[:, 3 * token : 3 * token + 3] for state in states], 1) for token in range(3)]
        states = [mixed(state + part) for state, part in zip(states, dealt, strict=True)]
        inner = [
            torch.nn.functional.gelu(state @ network.widen[token] + network.inner_bias.view(3, -1)[token])
            for token, state in enumerate(states)
        ]
        states = [
            thought(state + part @ network.narrow[token] + network.bias.view(3, -1)[token])
            for token, (state, part) in enumerate(zip(states, inner, strict=True))
        ]
    torch.testing.assert_close(model(features), torch.stack(states).mean(0))
