"""The soft-target contrastive loss of LLMEmb (SCFT and its alignment) and ReaEmb (LRCL)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_TEMPERATURE = 1e-3


def soft_contrastive(
    x: Tensor,
    y: Tensor,
    temperature: Tensor | float,
    target_temperature: Literal["divide", "multiply"] = "divide",
    normalize: bool = False,
    targets: Literal["attached", "detached", "identity"] = "attached",
) -> Tensor:
    """Bring row i of `x` and row i of `y` together, and both near rows that are like them.

    With logits P = X Y' / t and soft targets S = softmax of the rows of (X X' + Y Y') / (2 t):
    the mean over i of (-sum_j S_ij log softmax(P)_ij - sum_j S_ji log softmax(P')_ij) / 2. The second half weighs by
    columns of S, which need not sum to one (LLMEmb, AAAI 2025, SCFT and RAT; ReaEmb, 2026, LRCL).

    Args:
        x: (batch, dim) one view, or vectors of one kind.
        y: (batch, dim) the other.
        temperature: t, a number or a learned scalar; below 0.001 it counts as 0.001.
        target_temperature: S divides by t, or multiplies by t, as LLMEmb's code does.
        normalize: cosines instead of dot products.
        targets: S with gradient, S without, or S = identity, which is InfoNCE in both directions.
    Returns:
        () mean over the batch, in at least float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        # states of language models are long vectors: their products overflow half precision
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x, y = x.to(dtype), y.to(dtype)
        if normalize:
            x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
        t = torch.as_tensor(temperature, dtype=dtype, device=x.device).clamp(min=LEAST_TEMPERATURE)
        logits = x @ y.T / t
        rows, columns = logits.log_softmax(1), logits.log_softmax(0)
        if targets == "identity":
            return -(rows.diagonal() + columns.diagonal()).mean() / 2
        alike = (x @ x.T + y @ y.T) / 2
        soft = (alike / t if target_temperature == "divide" else alike * t).softmax(1)
        if targets == "detached":
            soft = soft.detach()
        # row i of P' is column i of P, and S_ji over j is column i of S: both sums run over the same matrix
        return -(soft * (rows + columns)).sum() / (2 * len(x))


@torch.no_grad()
def retrieval_accuracy(x: Tensor, y: Tensor, normalize: bool = False, same: Tensor | None = None) -> Tensor:
    """() share of rows of `x` (batch, dim) whose best match among the rows of `y` is their own.

    Args:
        same: (batch, batch) true where row j of `y` is no wrong match of row i; the diagonal counts whatever is said.
    """
    if normalize:
        x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    matches = x @ y.T
    if same is not None:
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        matches = matches.masked_fill(same & ~own, -torch.inf)
    return (matches.argmax(1) == torch.arange(len(x), device=x.device)).float().mean()


def session_contrastive(
    queries: Tensor,
    documents: Tensor,
    positive: Tensor,
    negative: Tensor,
    scale: float,
    sessions: Tensor | None = None,
    items: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Bring the query of each positive row near its document, and away from the documents of other rows.

    The sum over positive rows i of -log(exp(s cos(q_i, d_i)) / sum_j A_ij exp(s cos(q_i, d_j))). A_ij is 0 where j is
    no negative, and for j other than i where both rows are of one session, or show one item: those may be just as good.

    Args:
        queries: (rows, dim).
        documents: (rows, dim) of the items shown.
        positive: (rows,) bool: rows whose item is what the query wanted.
        negative: (rows,) bool: rows whose items stand against others.
        scale: what cosines are multiplied with, one by a temperature.
        sessions: (rows,) of the queries; None forgives nothing.
        items: (rows,) shown; None takes the same item in another row for a negative.
    Returns:
        () the sum, and () how many rows are positive.
    """
    with torch.autocast(queries.device.type, enabled=False):
        logits = scale * F.normalize(queries.float(), dim=1) @ F.normalize(documents.float(), dim=1).T
        allowed = negative[None].expand_as(logits)
        for labels in (sessions, items):
            if labels is not None:
                allowed = allowed & (labels[:, None] != labels[None])
        allowed = allowed | torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        losses = -logits.masked_fill(~allowed, -torch.inf).log_softmax(1).diagonal()
        return torch.where(positive, losses, 0.0).sum(), positive.sum()
