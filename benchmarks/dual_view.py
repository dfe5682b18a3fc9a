"""One training step of DMESR: all items fused once, and equal values projected once, beside a fusion a position.

    OMP_NUM_THREADS=1 python benchmarks/dual_view.py [--repeats 3]

Both sides use the same weights and give the same loss and gradients: the largest difference is printed, relative to
the largest gradient. Plain is what a module does that is called with items: the rows of every position of the batch
(inputs, targets, negatives; with the full softmax also every candidate) are gathered, projected and fused. Times are
CPU seconds of forward and backward, every side in a process of its own, medians after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.artifacts.sequences import ItemSequences
from tessera.recommenders.backbones.sasrec import SASRec
from tessera.recommenders.item_encoders.dual_view import DualViewEncoder
from tessera.recommenders.item_encoders.fusion import CrossAttention, masked_mean
from tessera.settings.backbones.sasrec import SASRecSettings
from tessera.settings.items.dual_view import DualViewItems

ITEMS, BATCH, LENGTH, DIM = 12_000, 128, 50, 64
TABLE_WIDTH = 384
VALUES = {"title": ITEMS, "category": 60, "brand": 1_500, "price": 2_000, "description": ITEMS}
"""Distinct values of each attribute: titles and descriptions are an item's own."""
LOSSES = ("1 negative", "4 negatives", "16 negatives", "full softmax")


def make() -> tuple[DualViewEncoder, SASRec, tuple[Tensor, Tensor]]:
    """The encoder, the backbone, and the fine view's rows (items + 1, n, width) with which of them there are."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    coarse = {}
    for shown in ("image", "text", "both"):
        present = torch.from_numpy(rng.random(ITEMS + 1) < 0.95)
        coarse[shown] = (torch.randn(ITEMS + 1, TABLE_WIDTH) * present[:, None], present)
    columns = []
    for count in VALUES.values():
        known = torch.randn(count, TABLE_WIDTH)
        own = np.arange(ITEMS + 1) % count if count == ITEMS else rng.zipf(1.3, ITEMS + 1) % count
        columns.append(known[torch.from_numpy(own)])
    fine = torch.stack(columns, 1)
    present = torch.ones(fine.shape[:2], dtype=torch.bool)
    present[rng.random(ITEMS + 1) < 0.1, -1] = False  # a tenth has no description
    settings = DualViewItems(image="i", text="t", both="b", fine="f")
    rows = ItemSequences.of((fine * present[..., None]).numpy(), present.numpy())
    encoder = DualViewEncoder(settings, coarse, rows, DIM)
    backbone = SASRec(SASRecSettings(dim=DIM, max_length=LENGTH, dropout=0.0))
    return encoder, backbone, (fine, present)


def plain_vectors(encoder: DualViewEncoder, rows: Tensor, there: Tensor, ids: Tensor) -> Tensor:
    """(positions, dim) item vectors, each position fused for itself.

    Args:
        rows: (items + 1, n, width) standardised attribute vectors.
        there: (items + 1, n) which there are.
        ids: (positions,)
    """
    coarse = torch.stack(
        [
            torch.where(
                encoder.get_buffer(f"has_{shown}")[ids, None],
                encoder.project[shown](encoder.get_buffer(f"table_{shown}")[ids]),
                encoder.absent[shown],
            )
            for shown in encoder.shown
        ],
        1,
    )
    assert encoder.fine is not None
    assert encoder.fusion is not None
    fine, present = encoder.fine.project(rows[ids]), there[ids]
    by_view = {"coarse": encoder.fusion.reads["coarse"], "fine": encoder.fusion.reads["fine"]}
    assert isinstance(by_view["coarse"], CrossAttention)
    one = coarse.mean(1) + by_view["coarse"](coarse, fine, present[:, None]).mean(1)
    other = masked_mean(fine, present) + masked_mean(by_view["fine"](fine, coarse), present)
    return torch.cat([encoder.adapters["coarse"](one), encoder.adapters["fine"](other)], 1)


def scored(states: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """BCE of states (targets, dim) with right (targets, dim) and wrong (targets, negatives, dim)."""
    negatives = torch.einsum("td,tnd->tn", states, wrong)
    return F.softplus(-(states * right).sum(1)).mean() + F.softplus(negatives).mean()


def step(side: str, loss: str, encoder: DualViewEncoder, backbone: SASRec, fine: tuple[Tensor, Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    windows = torch.randint(1, ITEMS + 1, (BATCH, LENGTH + 1), generator=generator)
    inputs, targets = windows[:, :-1], windows[:, 1:].flatten()
    lengths = torch.full((BATCH,), LENGTH)
    full = loss == "full softmax"
    negatives = torch.randint(1, ITEMS + 1, (len(targets), 0 if full else int(loss.split()[0])), generator=generator)
    if side == "once a step":
        vectors = encoder()
        states = backbone.hidden(F.embedding(inputs, vectors), lengths).flatten(0, 1)
        if full:
            return F.cross_entropy(states @ vectors[1:].T, targets - 1)
        return scored(states, vectors[targets], F.embedding(negatives, vectors))
    read = plain_vectors(encoder, *fine, inputs.flatten()).view(BATCH, LENGTH, DIM)
    states = backbone.hidden(read, lengths).flatten(0, 1)
    if full:
        return F.cross_entropy(states @ plain_vectors(encoder, *fine, torch.arange(1, ITEMS + 1)).T, targets - 1)
    wrong = plain_vectors(encoder, *fine, negatives.flatten()).view(*negatives.shape, DIM)
    return scored(states, plain_vectors(encoder, *fine, targets), wrong)


def measure(side: str, loss: str, repeats: int) -> dict[str, object]:
    torch.set_num_threads(1)
    encoder, backbone, (rows, present) = make()
    rows = (rows - rows[present].mean(0)) / (rows[present] - rows[present].mean(0)).square().mean().sqrt()
    parameters = [p for name, p in [*encoder.named_parameters(), *backbone.named_parameters()] if "heads" not in name]
    seconds = []
    for _ in range(repeats + 1):
        started = time.process_time()
        value = step(side, loss, encoder, backbone, (rows, present))
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        seconds.append(time.process_time() - started)
    known = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    gradients = [g.flatten()[:: max(1, g.numel() // 500)].tolist() for g in known]
    return {"seconds": median(seconds[1:]), "loss": value.item(), "gradients": gradients}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--losses", nargs="*", default=list(LOSSES))
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(*arguments.side, arguments.repeats)))
        return
    print("| loss | side | CPU seconds a step | ratio | largest difference |\n|---|---|---|---|---|")
    for loss in arguments.losses:
        found = {}
        for side in ("a fusion a position", "once a step"):
            command = [sys.executable, __file__, "--repeats", str(arguments.repeats), "--side", side, loss]
            found[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        plain, ours = found.values()
        pairs = [(np.array(a), np.array(b)) for a, b in zip(plain["gradients"], ours["gradients"], strict=True)]
        apart = max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) for a, b in pairs)
        apart = max(apart, abs(plain["loss"] - ours["loss"]) / plain["loss"])
        for side, one in found.items():
            ratio = plain["seconds"] / one["seconds"]
            print(f"| {loss} | {side} | {one['seconds']:.2f} | {ratio:.1f}x | {apart:.0e} |", flush=True)


if __name__ == "__main__":
    main()
