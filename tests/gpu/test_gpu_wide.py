"""More rows at once than the 65,535 that a dimension of CUDA's grids holds: the numbers of parts, and no error.

Named to run last: a kernel that fails badly takes the process's CUDA with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ctr_world import ITEMS as CTR_ITEMS
from ctr_world import make_batch, make_catalogue, settings
from kinds import CLICKS, RECOMMENDERS, Place
from pattern import ITEMS
from torch import Tensor

from tessera.ctr.task import build
from tessera.evaluation.histories import Histories
from tessera.recommenders.item_encoders.dual_view import DualViewEncoder
from tessera.recommenders.systems.backbone import SequentialRecommender
from tessera.recommenders.systems.base import as_scorer, recommender
from tessera.settings.items.dual_view import DualViewItems
from tessera.training.machine import seed_step
from tessera.training.phases import Position

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("settled")]

ON_GPU = os.environ.get("TESSERA_GPU_TESTS_ON", "cuda") == "cuda"
ROWS = 70_000 if ON_GPU else 2_100
"""The CPU, where the tests themselves are tried, has no such limit."""
PART = ROWS // 7
CLOSE = 2e-4
"""Most difference of a number between all rows at once and parts, as a share of the greatest."""


def histories(length: int = 4) -> np.ndarray:
    """(ROWS, length) of which some are shorter."""
    generator = np.random.default_rng(0)
    found = generator.integers(1, ITEMS + 1, (ROWS, length))
    return found * (np.arange(length) < generator.integers(2, length + 1, ROWS)[:, None])


def close(whole: Tensor, parts: Tensor) -> float:
    assert torch.isfinite(whole).all()
    return float((whole - parts).abs().max() / parts.abs().max().clamp(min=1e-12))


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


WIDE = [
    "sasrec/ids", "bert4rec/ids", "gru4rec/ids", "sasrec/dual_view-sequence", "bert4rec/dual_view", "tiger",
]  # fmt: skip


def network(name: str, device: str, folder: Path) -> tuple[torch.nn.Module, Any]:
    (folder / "run").mkdir()
    run, inputs = RECOMMENDERS[name](Place(device), folder / "run")
    seed_step(1)
    return recommender(run).build(run, inputs, np.ones(ITEMS + 1, np.int64)).to(device), run


def summed(model: Any, histories: Histories) -> tuple[Tensor, Tensor]:
    """All losses of a batch as a sum over its targets, and their number."""
    losses = model.losses(histories, Position(0, 0, 0, 0.0, {})).values()
    (count,) = (term.targets for term in losses if term.targets is not None)
    return sum(term.value if term.targets is not None else term.value * count for term in losses), count


@pytest.mark.parametrize("name", WIDE)
def test_scores_of_many_histories_are_those_of_parts(
    name: str, device: str, tmp_path: Path, measure: Callable[..., None]
) -> None:
    model, _ = network(name, device, tmp_path)
    if name == "tiger":
        rows = torch.from_numpy(histories(2)).to(device)
        model.eval()

        def read(part: Tensor) -> Tensor:
            vectors = model._vectors(part)
            states: Tensor = model.encoder(vectors, torch.ones_like(vectors[..., 0], dtype=torch.bool))
            return states

        with torch.no_grad():
            whole = read(rows)
            parts = torch.cat([read(part) for part in rows.split(PART)])
    else:
        scorer = as_scorer(model, torch.device(device))
        given = Histories.of(histories())
        whole = scorer(given)
        parts = torch.cat([scorer(given.take(slice(s, s + PART))) for s in range(0, ROWS, PART)])
    difference = close(whole, parts)
    measure(scores=difference)
    assert difference <= CLOSE


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in WIDE if name not in ("bert4rec/ids", "bert4rec/dual_view")])
def test_a_step_of_many_histories_is_that_of_parts(
    name: str, precision: str, device: str, tmp_path: Path, measure: Callable[..., None]
) -> None:
    """Loss and gradients. (BERT4Rec hides other items in parts: see below.)"""
    model, _ = network(name, device, tmp_path)
    if isinstance(model, SequentialRecommender):
        model.items.auxiliary_losses = lambda *_: {}  # type: ignore[method-assign]  # it is one number a step
    given = Histories.of(histories()).to(torch.device(device))
    if name == "tiger" and not model.encoder.causal:  # type: ignore[union-attr]
        last = given.items.gather(1, given.lengths[:, None] - 1)[:, 0]
        before = given.items.scatter(1, given.lengths[:, None] - 1, 0)
        given = replace(given, items=before, lengths=(given.lengths - 1).clamp(min=1), targets=last)

    def step(rows: list[Histories]) -> tuple[float, dict[str, Tensor]]:
        model.zero_grad(set_to_none=True)
        total = 0.0
        for part in rows:
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                loss, _ = summed(model, part)
            loss.backward()
            total += float(loss.detach())
        return total, gradients(model)

    whole, ours = step([given])
    parts, theirs = step([given.take(slice(start, start + PART)) for start in range(0, ROWS, PART)])
    most = max(close(ours[key], theirs[key]) for key in theirs if float(theirs[key].abs().max()) > 1e-3)
    measure(loss=abs(whole - parts) / parts, gradients=most)
    assert all(torch.isfinite(gradient).all() for gradient in ours.values())
    if precision == "bfloat16":  # gradients of all rows together lose other digits than those of parts
        assert abs(whole - parts) <= 2e-2 * parts
        return
    assert abs(whole - parts) <= 1e-4 * parts
    assert most <= 1e-2, f"a gradient differs by {most:.2e} of its greatest entry"


@pytest.mark.parametrize("name", ["bert4rec/ids", "bert4rec/dual_view"])
def test_a_step_of_many_histories_with_hidden_items(name: str, device: str, tmp_path: Path) -> None:
    model, _ = network(name, device, tmp_path)
    loss, count = summed(model, Histories.of(histories()).to(torch.device(device)))
    loss.backward()
    assert int(count) >= ROWS
    assert 0.5 < float(loss.detach()) / int(count) < 10
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


@pytest.mark.parametrize("fusion", ["attention", "concat"])
def test_two_views_of_many_items_are_those_of_parts(fusion: str, device: str, measure: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(0)
    names = {"image": "image", "text": "text", "both": "both", "fine": "fine"}
    made = DualViewItems.model_validate({**names, "width": 8, "adapter": [10], "fusion": fusion})
    coarse = {
        shown: (torch.randn(ROWS + 1, 6, generator=generator), torch.rand(ROWS + 1, generator=generator) < 0.9)
        for shown in made.coarse
    }
    fine = (torch.randn(ROWS + 1, 3, 7, generator=generator), torch.ones(ROWS + 1, 3, dtype=torch.bool))
    found = []
    for place in ("cpu", device):
        torch.manual_seed(0)
        encoder = DualViewEncoder(made, coarse, fine, 12).eval().to(place)
        vectors = encoder()
        vectors.square().sum().backward()
        assert all(torch.isfinite(gradient).all() for gradient in gradients(encoder).values())
        found.append(vectors.detach().cpu())
    difference = close(found[1], found[0])
    measure(vectors=difference)
    assert difference <= CLOSE


@pytest.mark.parametrize("name", CLICKS)
def test_many_impressions_are_those_of_parts(name: str, device: str, measure: Callable[..., None]) -> None:
    keys = {**CLICKS[name], "k": 4} if "k" in CLICKS[name] else CLICKS[name]
    torch.manual_seed(0)
    model = build(settings(**keys), make_catalogue()).to(device).eval()
    generator = np.random.default_rng(0)
    batch = make_batch(generator.integers(0, 9, ROWS).tolist())
    assert int(batch.items.max()) <= CTR_ITEMS
    batch = batch.to(device)

    def part(start: int, stop: int) -> Any:
        return replace(batch, **{f.name: getattr(batch, f.name)[start:stop] for f in fields(batch)})

    with torch.no_grad():
        whole = model(batch)
        parts = torch.cat([model(part(start, start + PART)) for start in range(0, ROWS, PART)])
    difference = close(whole, parts)
    measure(logits=difference)
    assert difference <= CLOSE
    model.train()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch.labels)
    loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
