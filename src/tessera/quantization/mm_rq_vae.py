"""Multimodal RQ-VAE (MME-SID, CIKM 2025, section 3.2): every table has codes of its own, drawn to the first table's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.objectives.contrastive import soft_contrastive
from tessera.objectives.mmd import mmd
from tessera.quantization.autoencoder import Part, Passed, fit_autoencoders
from tessera.quantization.base import Fitted
from tessera.quantization.vectors import PartVectors
from tessera.settings.quantizers.mm_rq_vae import MMRQVAE
from tessera.training.losses import Losses, Term, reported

__all__ = ["Part", "fit"]

LEAST = 2
"""Fewest rows of a batch that clouds, and pairs, are compared over."""


def both(a: Passed, b: Passed) -> tuple[Tensor, Tensor]:
    """Quantised vectors of the items that two parts have: (n, dim) of either, row by row the same item."""
    shared_a, shared_b = torch.isin(a.rows, b.rows), torch.isin(b.rows, a.rows)
    return a.quantized.vectors[shared_a], b.quantized.vectors[shared_b]


def alignment(passed: list[Passed], settings: MMRQVAE) -> Tensor:
    """() how far quantised vectors of the first part are from those of each other part, added up.

    InfoNCE (the paper) takes cosines, and the mean of both directions, or that from the first part to the others (the
    later release of its code); MMD (the first release) compares clouds.
    """
    total = passed[0].x.new_zeros(())
    for other in passed[1:]:
        x, y = both(passed[0], other)
        if settings.align == "none" or len(x) < LEAST:
            continue
        if settings.align == "mmd":
            total = total + mmd(x, y)
        elif settings.align_direction == "first":
            cosines = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T
            own = torch.arange(len(x), device=x.device)
            total = total + F.cross_entropy(cosines / settings.align_temperature, own)
        else:
            total = total + soft_contrastive(x, y, settings.align_temperature, normalize=True, targets="identity")
    return total


def losses(passed: list[Passed], settings: MMRQVAE, names: Sequence[str]) -> Losses:
    """rec (mmd L_MMD + mse L_MSE) + L_codes + align_weight L_align (section 3.2, with L_MSE added), sums over parts.

    Items that lack a part count nowhere in its losses, nor in its alignment.
    """
    clouds = pairs = codes = passed[0].x.new_zeros(())
    if all(len(part.x) < LEAST for part in passed):
        # a batch that compares nothing still has a loss to give
        pairs = sum((part.made.float().sum() * 0 for part in passed), pairs)
    cosines: Losses = {}
    for name, part in zip(names, passed, strict=True):
        if len(part.x) < LEAST:
            continue
        made = part.made.float()
        if settings.mmd:
            clouds = clouds + mmd(made, part.x)
        pairs = pairs + F.mse_loss(made, part.x)
        codes = codes + part.quantized.loss
        cosines = {**cosines, f"cosine {name}": reported(part.cosine())}
    aligned = alignment(passed, settings)
    loss = settings.rec * (settings.mmd * clouds + settings.mse * pairs) + codes + settings.align_weight * aligned
    parts = {"reconstruction": pairs, "mmd": clouds, "codes": codes, "alignment": aligned}
    return {"loss": Term(loss), **{name: reported(value) for name, value in parts.items()}, **cosines}


def fit(settings: MMRQVAE, data: Sequence[PartVectors], state: Path) -> Fitted:
    """Train the autoencoders of all parts together."""
    names = [part.name for part in data]
    return fit_autoencoders(settings, data, state, partial(losses, settings=settings, names=names))
