"""Contrast with the other targets of a batch as negatives, without those that are none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def in_batch(
    queries: Tensor,
    targets: Tensor,
    temperature: float | Tensor,
    same: Tensor,
    negatives: Tensor | None = None,
    absent: Tensor | None = None,
) -> Tensor:
    """InfoNCE from queries to targets: -log softmax of the cosines over the temperature, at each query's own target.

    Args:
        queries: (batch, dim).
        targets: (batch, dim); row i belongs to query i.
        temperature: of the softmax.
        same: (batch, batch) true where target j is no negative of query i: it says the same as the query or its target.
            The diagonal counts whatever is said of it.
        negatives: (batch, k, dim) further ones, each of its own query alone.
        absent: (batch, k) true where there is none.
    Returns:
        () mean over the batch, in at least float32.
    """
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        q, p = F.normalize(queries.to(dtype), dim=-1), F.normalize(targets.to(dtype), dim=-1)
        own = torch.eye(len(q), dtype=torch.bool, device=q.device)
        logits = (q @ p.T / temperature).masked_fill(same & ~own, -torch.inf)
        if negatives is not None and negatives.shape[1]:
            further = torch.einsum("bd,bkd->bk", q, F.normalize(negatives.to(dtype), dim=-1)) / temperature
            if absent is not None:
                further = further.masked_fill(absent, -torch.inf)
            logits = torch.cat([logits, further], 1)
        return F.cross_entropy(logits, torch.arange(len(q), device=q.device))
