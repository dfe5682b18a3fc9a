"""Click-through models: each against its definition written as loops, and its serving path against its batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ctr_world import ENCODED, ITEMS, make_batch, make_catalogue, make_codes, settings
from torch import Tensor

from tessera.ctr import retrieval
from tessera.ctr.attention import Dice, DINAttention, TargetAttention, age_buckets
from tessera.ctr.batch import Batch
from tessera.ctr.models.base import CodeVectors, ItemVectors
from tessera.ctr.models.mirrn import FourierFilter
from tessera.ctr.task import build
from tessera.settings.kinds import tags

R2LED_KINDS: list[dict[str, Any]] = [
    {},
    {"routes": ["levels"]},
    {"routes": ["levels", "target", "global"], "fusion": "mean"},
    {"routes": ["recent"], "gate": "levels", "combine": "sum"},
    {"routes": ["global"], "gate": "sum", "start": "random"},
    {"views": "collaborative", "gate": "concat"},
    {"views": "semantic", "gate": "none"},
    {"views": "semantic", "matches_only": False, "level_weights": [0.5, 0.0, 0.5]},
    {"mixing": "fuse", "alpha": 0.3},
    {"short": 0, "bits": 16, "histogram": False},
    {"counts": True},
    {"counts": True, "histogram": False},
]
LEMUR_KINDS: list[dict[str, Any]] = [
    {},
    {"regime": "end_to_end", "recent": 0, "cosines": False},
    {"forwarded": 0.5, "learned": 0.3, "refresh": "age", "counts": True, "short": 0},
]
KINDS: list[dict[str, Any]] = [
    {"model": "avg"},
    {"model": "avg", "read_codes": True},
    {"model": "avg", "counts": True},
    {"model": "sim_hard", "k": 5, "counts": True, "read_codes": True},
    {"model": "din"},
    {"model": "din", "window": None, "activation": "relu", "attention_hidden": [8, 4]},
    {"model": "sim_hard", "k": 5},
    {"model": "sim_soft", "k": 5},
    {"model": "eta", "k": 5},
    {"model": "eta", "k": 5, "index": False, "read_codes": True, "combine": "sum"},
    {"model": "sdim", "bits": 24},
    {"model": "twin", "k": 5},
    {"model": "mirrn", "k": 5, "short": 0},
    {"model": "mirrn", "k": 6, "index": False},
    {"model": "mirrn", "k": 5, "preset": "official"},
    *({"model": "r2led", "k": 6, **keys} for keys in R2LED_KINDS),
    *({"model": "lemur", **ENCODED, **keys} for keys in LEMUR_KINDS),
]


def name(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items() if key not in ENCODED)


def make(keys: dict[str, Any], **catalogue: Any) -> Any:
    torch.manual_seed(0)
    return build(settings(**keys), make_catalogue(**catalogue)).eval()


def test_every_kind_is_tested() -> None:
    assert {keys["model"] for keys in KINDS} == set(tags("clicks"))


@pytest.mark.parametrize("scanned", [0, 1 << 16])
@pytest.mark.parametrize("keys", KINDS, ids=name)
def test_a_request_gives_the_logits_of_a_batch(
    keys: dict[str, Any], scanned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "SCANNED", scanned)
    model = make(keys)
    for length in (0, 3, 90):
        batch = make_batch([length] * 70, seed=length, shared=True)
        candidates = torch.arange(1, ITEMS + 1).repeat(2)[:70]
        batch = replace(batch, items=candidates)
        with torch.no_grad():
            expected = model(batch)
        found = model.request(batch.histories[0], batch.ages[0], candidates)
        assert torch.allclose(found, expected, atol=2e-5), (found - expected).abs().max()
        one = model.request(batch.histories[0], batch.ages[0], candidates[:1])  # few candidates take other paths
        assert torch.allclose(one, expected[:1], atol=2e-5)
    assert expected.std() > 0


@pytest.mark.parametrize("keys", KINDS, ids=name)
def test_padding_and_other_rows_change_nothing(keys: dict[str, Any]) -> None:
    if keys.get("preset") == "official":
        pytest.skip("padding changes its numbers: that is the fault")
    model = make(keys)
    batch = make_batch([90, 0, 4, 31, 1])
    with torch.no_grad():
        together = model(batch)
    assert torch.isfinite(together).all()
    for row, length in enumerate(batch.lengths.tolist()):
        one = Batch(*(getattr(batch, part)[row : row + 1] for part in ("users", "items", "histories", "lengths")),
                    ages=batch.ages[row : row + 1, :length], labels=batch.labels[row : row + 1])  # fmt: skip
        one = replace(one, histories=one.histories[:, :length])
        with torch.no_grad():
            assert torch.allclose(model(one), together[row], atol=1e-5)


@pytest.mark.parametrize("keys", KINDS, ids=name)
def test_everything_learns(keys: dict[str, Any]) -> None:
    model = make(keys).train()
    # so many events that all ages are met, and items of all codes
    batch = make_batch([90] * 40)
    batch = replace(batch, ages=batch.ages * torch.logspace(0, 1.5, 40)[:, None].long())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch.labels)
    if hasattr(model, "auxiliary"):
        loss = loss + model.auxiliary(batch)
    loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    again = make(keys).train()
    assert torch.equal(again(batch), make(keys).train()(batch))


def test_one_event_and_one_row_can_be_trained_on() -> None:
    for keys in KINDS:
        model = make(keys).train()
        for lengths in ([1], [0], [0, 0]):
            model(make_batch(lengths)).sum().backward()
        assert all(torch.isfinite(p).all() for p in model.state_dict().values() if p.is_floating_point()), keys


def test_items_that_training_never_met_have_no_vector_of_their_own() -> None:
    model = make({"model": "avg"})
    with torch.no_grad():
        vectors = model.items(torch.tensor([0, 5, 6]))
    assert (vectors[0] == 0).all()
    assert (vectors[1, :8] == 0).all()
    assert (vectors[2, :8] != 0).all()


def test_code_vectors_start_as_codebooks() -> None:
    catalogue = make_catalogue()
    given = settings(model="r2led", combine="sum")
    made = CodeVectors(given, catalogue, 0.5)
    items = torch.tensor([1, 2, 3])
    codes = torch.from_numpy(catalogue.codes.codes)[items]  # type: ignore[union-attr]
    books = catalogue.codebooks
    expected = torch.stack([books[0, level][codes[:, level]] for level in range(3)]).sum(0)
    found = made(items)
    assert torch.allclose(found / found.norm(), expected / expected.norm(), atol=1e-6)
    every = torch.cat([table.weight[1:].flatten() for table in made.levels])
    assert every.square().mean().sqrt().item() == pytest.approx(0.5)
    assert (made(torch.tensor([7])) == 0).all()  # an item without codes
    assert ItemVectors(settings(model="avg"), catalogue, codes=True).width == 8 + 8 + 18
    # the level that only tells items apart has no vector
    assert len(CodeVectors(given, make_catalogue(make_codes(extra=True)), 0.5).levels) == 2


def test_models_that_read_codes_say_when_there_are_none() -> None:
    bare = replace(make_catalogue(), codes=None, codebooks={})
    for keys in ({"model": "r2led"}, {"model": "avg", "read_codes": True}):
        with pytest.raises(ValueError, match=r"set ctr\.semantic_ids"):
            build(settings(**keys), bare)


def test_a_search_by_category_says_when_there_are_none() -> None:
    bare = replace(make_catalogue(), n_categories=0)
    build(settings(model="sim_soft"), bare)
    with pytest.raises(ValueError, match=r"no item has one: name an attribute of the items in ctr\.samples\.category"):
        build(settings(model="sim_hard"), bare)


# ---------------------------------------------------------------- parts


def test_din_attention_is_its_definition() -> None:
    torch.manual_seed(0)
    attention = DINAttention(4, [6, 3], "relu")
    target, events = torch.randn(2, 4), torch.randn(2, 5, 4)
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    expected = torch.zeros(2, 4)
    for row in range(2):
        for event in range(int(valid[row].sum())):
            e, v = events[row, event], target[row]
            # [e; v; e * v]; e - v is a linear function of the first two
            weight = torch.cat([attention.event.weight, attention.target.weight, attention.product.weight], 1)
            hidden = torch.relu(weight @ torch.cat([e, v, e * v]) + attention.event.bias)
            hidden = torch.relu(attention.layers[0](hidden))
            expected[row] += attention.layers[1](hidden).item() * e
    assert torch.allclose(attention(target, events, valid), expected, atol=1e-6)


def test_dice_is_standardized_over_the_events_that_there_are() -> None:
    dice = Dice(3).train()
    with torch.no_grad():
        dice.slope.copy_(torch.tensor([0.1, 0.2, 0.3]))
    values = torch.randn(2, 4, 3) * 2 + 1
    valid = torch.tensor([[True] * 4, [True, False, False, False]])
    real = values[valid]
    p = torch.sigmoid((real - real.mean(0)) / (real.var(0, unbiased=False) + 1e-8).sqrt())
    assert torch.allclose(dice(values, valid)[valid], real * p + dice.slope * real * (1 - p), atol=1e-6)
    assert torch.allclose(dice.mean, 0.1 * real.mean(0), atol=1e-6)
    before = dice.mean.clone()
    assert torch.isfinite(dice(values[:1, :1], valid[:1, :1])).all()
    assert torch.equal(before, dice.mean)


def test_target_attention_is_torch_multi_head_attention() -> None:
    torch.manual_seed(0)
    ours = TargetAttention(8, 8, 2)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    target, events = torch.randn(3, 8), torch.randn(3, 5, 8)
    valid = torch.tensor([[True] * 5, [True, True, False, True, False], [True] + [False] * 4])
    expected = theirs(target[:, None], events, events, key_padding_mask=~valid)[0][:, 0]
    assert torch.allclose(ours(target, ours.project(events), valid), expected, atol=1e-6)
    assert (ours(target, ours.project(events), torch.zeros_like(valid)) == 0).all()
    shared = ours(target, ours.project(events[:1]), valid[1:2])
    assert torch.allclose(shared[0], ours(target[:1], ours.project(events[:1]), valid[1:2])[0], atol=1e-6)


def test_ages_are_told_by_powers_of_two() -> None:
    ages = torch.tensor([0, 1, 2, 3, 6, 7, 2**39, 2**62])
    assert age_buckets(ages).tolist() == [0, 1, 1, 2, 2, 3, 39, 39]


# ---------------------------------------------------------------- models as loops


def of_row(batch: Batch, row: int) -> tuple[list[int], list[int]]:
    length = int(batch.lengths[row])
    return batch.histories[row, :length].tolist(), batch.ages[row, :length].tolist()


def top(scores: list[float], k: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda p: (-scores[p], -p))[:k])


LENGTHS = [40, 0, 3, 90, 12]


def found_by(model: Any, batch: Batch) -> list[list[int]]:
    return [torch.nonzero(row)[:, 0].tolist() for row in model.selected(batch)]


def test_sim_hard_finds_the_latest_of_the_category() -> None:
    model, batch, catalogue = make({"model": "sim_hard", "k": 5}), make_batch(LENGTHS), make_catalogue()
    for row, found in enumerate(found_by(model, batch)):
        history, _ = of_row(batch, row)
        wanted = int(catalogue.categories[batch.items[row]])
        same = [p for p, item in enumerate(history) if wanted and int(catalogue.categories[item]) == wanted]
        assert found == same[-5:]


def test_sim_soft_finds_the_largest_products_and_learns_to() -> None:
    model, batch = make({"model": "sim_soft", "k": 5}), make_batch(LENGTHS)
    with torch.no_grad():
        for row, found in enumerate(found_by(model, batch)):
            history, _ = of_row(batch, row)
            query = model.search_query(model.search_items(batch.items[row]))
            products = {item: float(model.search_items(torch.tensor(item)) @ query) for item in set(history)}
            assert found == top([products[item] for item in history], 5)
    model.auxiliary(batch).backward()
    assert model.search_items.ids.weight.grad.any()
    assert model.items.ids.weight.grad is None


def test_eta_finds_the_nearest_codes_of_current_vectors() -> None:
    model, batch = make({"model": "eta", "k": 5}), make_batch(LENGTHS)
    with torch.no_grad():
        model.items.ids.weight.mul_(torch.rand(8) * 3)
        signs = (model.items(torch.arange(ITEMS + 1)) @ model.hash.projections > 0).numpy()
    for row, found in enumerate(found_by(model, batch)):
        history, _ = of_row(batch, row)
        assert found == top([-int((signs[item] != signs[batch.items[row]]).sum()) for item in history], 5)


def test_twin_retrieves_with_the_score_it_weighs_with() -> None:
    model, batch = make({"model": "twin", "k": 5, "short": 0}), make_batch(LENGTHS)
    with torch.no_grad():
        model.bias.weight.normal_()
        for row, found in enumerate(found_by(model, batch)):
            history, ages = of_row(batch, row)
            target = model.items(batch.items[row])
            scores = []
            for item, age in zip(history, ages, strict=True):
                key = model.key(model.items(torch.tensor(item))).view(4, 8)
                bias = model.bias.weight[int(math.log2(age + 1))]
                scores.append((key * model.query(target).view(4, 8)).sum(1) / math.sqrt(8) + bias)
            assert found == top([float(score.sum()) for score in scores], 5)
            interest = torch.zeros(16)
            if history:
                weights = torch.stack([scores[p] for p in found]).softmax(0)  # (k, heads)
                tokens = torch.stack([
                    model.items(torch.tensor(history[p])) + model.ages.weight[int(math.log2(ages[p] + 1))]
                    for p in found
                ])  # fmt: skip
                values = model.value(tokens).view(len(found), 4, 8)
                interest = model.out((weights[..., None] * values).sum(0).flatten())
            assert torch.allclose(model.tower(target, [interest]), model(batch)[row], atol=1e-5)


def test_sdim_is_the_mean_of_the_normalised_sums_of_what_collides() -> None:
    model, batch = make({"model": "sdim", "bits": 24, "short": 0}), make_batch(LENGTHS)
    with torch.no_grad():
        signs = (model.items(torch.arange(ITEMS + 1)) @ model.hash.projections > 0).view(-1, 8, 3)
        for row in range(len(batch)):
            history, _ = of_row(batch, row)
            target = int(batch.items[row])
            interest = torch.zeros(16)
            for group in range(8):
                same = [i for i in history if torch.equal(signs[i, group], signs[target, group])]
                summed = model.items(torch.tensor(same, dtype=torch.long)).sum(0)
                interest += summed / summed.norm().clamp(min=1e-12) / 8
            expected = model.tower(model.items(batch.items[row]), [interest])
            assert torch.allclose(expected, model(batch)[row], atol=1e-5)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("k", [5, 6])
def test_the_fourier_filter_is_its_definition(k: int, diagonal: bool) -> None:
    torch.manual_seed(0)
    made = FourierFilter(k, 6, 2, diagonal)
    events, valid = torch.randn(2, k, 6), torch.ones(2, k, dtype=torch.bool)
    valid[1, 3:] = False
    with torch.no_grad():
        made.weight.mul_(20)
        found = made(events, valid)
        for row in range(2):
            signal = (events[row] * valid[row][:, None]).double().numpy()
            spectrum = np.fft.rfft(signal, axis=0)
            mixed = np.zeros_like(spectrum)
            weight = torch.view_as_complex(made.weight).numpy()
            for frequency in range(k // 2 + 1):
                for block in range(2):
                    part = spectrum[frequency, block * 3 : block * 3 + 3]
                    matrix = weight[frequency, block]
                    result = part * np.diag(matrix) if diagonal else part @ matrix
                    mixed[frequency, block * 3 : block * 3 + 3] = result
            back = torch.from_numpy(signal + np.fft.irfft(mixed, n=k, axis=0))
            normal = (back - back.mean(1, keepdim=True)) / (back.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            assert torch.allclose(found[row], (normal * valid[row][:, None]).float(), atol=1e-5)


def test_mirrn_asks_for_the_target_the_last_events_and_all() -> None:
    model, batch = make({"model": "mirrn", "k": 4, "recent": 3}), make_batch(LENGTHS)
    with torch.no_grad():
        for row, found in enumerate(found_by(model, batch)):
            history, _ = of_row(batch, row)
            vectors = model.items(torch.tensor(history, dtype=torch.long))
            queries = [model.items(batch.items[row]), vectors[-3:].sum(0), vectors.sum(0)]
            signs = model.hash.signs(vectors)
            expected: set[int] = set()
            for query in queries:
                expected |= set(top((signs == model.hash.signs(query)).sum(-1).tolist(), 4))
            assert found == sorted(expected)
    with pytest.raises(ValueError, match="cannot be cut"):
        make({"model": "mirrn", "dim": 7, "category_dim": 8, "read_codes": True})


def r2led_scores(model: Any, batch: Batch, row: int, kind: str) -> tuple[list[float], list[float]]:
    """The collaborative and the semantic score of each event of a row, as docs/systems/r2led.md has them."""
    history, _ = of_row(batch, row)
    vectors = model.items(torch.tensor(history, dtype=torch.long))
    codes = make_catalogue().codes.codes.tolist()  # type: ignore[union-attr]
    window = {"target": [int(batch.items[row])], "recent": history[-3:], "global": history}[kind]
    query = model.items(torch.tensor(window, dtype=torch.long)).sum(0)
    same = (model.hash.signs(vectors) == model.hash.signs(query)).float().mean(-1).tolist()
    semantic = []
    for item in history:
        total = 0.0
        for asked in window:
            for a, b in zip(codes[item], codes[asked], strict=True):
                if a != b or a < 0:
                    break
                total += 1 / 3
        semantic.append(total / len(window))
    return same, semantic


@pytest.mark.parametrize("mixing", ["quota", "fuse"])
@pytest.mark.parametrize("kind", ["target", "recent", "global"])
def test_r2led_routes_mix_both_views(kind: str, mixing: str) -> None:
    keys = {"k": 7, "recent": 3, "routes": ["levels", kind], "mixing": mixing, "alpha": 0.4}
    model, batch = make({"model": "r2led", **keys}), make_batch(LENGTHS)
    with torch.no_grad():
        last = model.routes(batch, batch.histories, batch.histories > 0)[-1]
        for row, (positions, valid) in enumerate(zip(last.positions, last.valid, strict=True)):
            found = positions[valid].tolist()
            same, semantic = r2led_scores(model, batch, row, kind)
            if mixing == "fuse":
                mixed = [round(0.4 * a + 0.6 * b, 9) for a, b in zip(same, semantic, strict=True)]
                assert found == top(mixed, 7)
            else:
                by_prefix = [p for p in top([round(s, 9) for s in semantic], 3) if semantic[p] > 0]
                assert found == sorted({*top(same, 4), *by_prefix})


def test_r2led_routes_by_level_take_the_latest_of_each_prefix() -> None:
    model = make({"model": "r2led", "k": 3, "routes": ["levels"], "views": "semantic"})
    batch = make_batch([90] * 20)
    codes = make_catalogue().codes.codes.tolist()  # type: ignore[union-attr]
    assert len(model.kinds) == 3
    for row, found in enumerate(found_by(model, batch)):
        history, _ = of_row(batch, row)
        asked = codes[int(batch.items[row])]
        expected: set[int] = set()
        for level in (1, 2, 3):
            same = [p for p, i in enumerate(history) if asked[0] >= 0 and codes[i][:level] == asked[:level]]
            expected |= set(same[-3:])
        assert found == sorted(expected)


def test_r2led_gate_and_route_attention_are_their_definitions() -> None:
    model, batch = make({"model": "r2led", "k": 6, "short": 0}), make_batch(LENGTHS)
    gated = model.gated
    with torch.no_grad():
        items = torch.arange(1, 9)
        raw, codes = model.items(items), gated.codes(items)
        side, other = gated.project(raw), gated.semantic(codes)
        gate = torch.sigmoid(gated.gates(torch.cat([side, other, side * other], 1)))
        assert torch.allclose(model.fused(items), gate * side + (1 - gate) * other)

        routes = model.routes(batch, batch.histories, batch.histories > 0)
        for row in range(len(batch)):
            target = model.fused(batch.items[row : row + 1])
            each: list[Tensor] = []
            for attention, route in zip(model.attentions, routes, strict=True):
                at = route.positions[row][route.valid[row]]
                events = model.fused(batch.histories[row, at], batch.ages[row, at])[None]
                some = torch.ones(1, len(at), dtype=torch.bool)
                each.append(attention(target, attention.project(events), some) if len(at) else torch.zeros(1, 16))
            there = [number for number, route in enumerate(routes) if route.valid[row].any()]
            fused = torch.zeros(1, 16)
            if there:
                query = model.route_query(target)[0]
                scores = torch.stack([query @ model.route_key(each[number])[0] for number in there]) / math.sqrt(32)
                for share, number in zip(scores.softmax(0), there, strict=True):
                    fused += share * model.route_value(each[number])
            codes_of = model.whole.of
            wanted, history = codes_of(batch.items[row]).tolist(), batch.histories[row, : int(batch.lengths[row])]
            shared = [
                sum(code[level] == wanted[level] >= 0 for code in codes_of(history).tolist())
                for level in range(len(wanted))
            ]
            shares = [100 * count / max(1, len(history)) for count in shared]
            added = [0.5 * torch.log1p(torch.tensor([numbers], dtype=torch.float32)) for numbers in (shared, shares)]
            expected = model.tower(target, [fused, *each], added)[0]
            assert torch.allclose(expected, model(batch)[row], atol=1e-5)


@pytest.mark.parametrize("keys", KINDS, ids=name)
def test_what_is_kept_while_answering_follows_the_weights(keys: dict[str, Any]) -> None:
    model, batch = make(keys), make_batch(LENGTHS)
    with torch.no_grad():
        before = model(batch)
        torch.manual_seed(9)
        other = build(settings(**keys), make_catalogue()).eval()
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(batch), other(batch))
        assert not torch.equal(model(batch), before)
        for parameter in other.parameters():
            parameter.add_(0.1)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(batch), other(batch))


def test_codes_without_an_order_are_compared_level_by_level() -> None:
    model = make({"model": "r2led", "k": 6, "views": "semantic"}, codes=make_codes(ordered=False))
    batch = make_batch([90] * 30, shared=True)
    with torch.no_grad():
        expected = model(batch)
    assert torch.allclose(model.request(batch.histories[0], batch.ages[0], batch.items), expected, atol=2e-5)
    other = make({"model": "r2led", "k": 6, "views": "semantic"})
    assert not torch.equal(model.selected(batch), other.selected(batch))


@pytest.mark.parametrize("kind", tags("clicks"))
def test_many_candidates_are_scored_in_turn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make({"model": kind}), make_batch([90] * 30, shared=True)
    request = (batch.histories[0], batch.ages[0], batch.items)
    at_once, calls = model.request(*request), []
    score = model.score
    monkeypatch.setattr("tessera.ctr.models.base.CELLS", 2_000)
    monkeypatch.setattr(model, "score", lambda prepared, part: calls.append(len(part)) or score(prepared, part))
    assert torch.allclose(model.request(*request), at_once, atol=1e-6)
    assert sum(calls) == 30
    assert len(calls) > 1 or kind == "avg"
