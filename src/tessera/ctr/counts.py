"""How much of a history is like the target, as numbers: events with the same item, category, or prefix of codes.

Attention over retrieved events tells what they are and hardly how many there were. Any model may read these counts
(`counts` of its settings), so that a gain of retrieval is told apart from a gain of counting.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.sid_index import Prefixes

_HIDDEN = 16


class Histogram:
    """How many events of one history have each key, a column each; asked in O(columns log n) a candidate."""

    def __init__(self, keys: Tensor, counts: Tensor) -> None:
        """
        Args:
            keys: (n, columns) of items.
            counts: (n,) events of each.
        """
        self.columns: list[tuple[Tensor, Tensor]] = []
        for column in keys.T:
            known, inverse = torch.unique(column, return_inverse=True)
            self.columns.append((known, torch.zeros_like(known).index_add_(0, inverse, counts)))

    def of(self, keys: Tensor) -> Tensor:
        """(rows, columns) keys of candidates -> events that share them; a negative key shares nothing."""
        columns = []
        for (known, events), wanted in zip(self.columns, keys.T.contiguous(), strict=True):
            place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
            columns.append(torch.where((known[place] == wanted) & (wanted >= 0), events[place], 0))
        return torch.stack(columns, 1)


def shared(events: Tensor, target: Tensor) -> Tensor:
    """(rows, columns) events that share each key with the target, by scanning.

    Args:
        events: (rows, length, columns) keys; negative ones are shared with nobody.
        target: (rows, columns).
    """
    wanted = target[:, None]
    return ((events == wanted) & (wanted >= 0)).sum(1)


def scaled(counts: Tensor, lengths: Tensor, kind: torch.dtype) -> list[Tensor]:
    """Counts (rows, columns) and their shares of histories of lengths (rows,) or (1,), both within a few units."""
    share = counts / lengths.clamp(min=1)[:, None]
    return [0.5 * torch.log1p(counts.to(kind)), 0.5 * torch.log1p(100 * share.to(kind))]


class Counts(nn.Module):
    """A part (rows,) of the logit that is told by counts alone: a small network of logarithms."""

    def __init__(self, catalogue: Catalogue, prefixes: bool) -> None:
        """
        Args:
            catalogue: categories and codes.
            prefixes: count events by prefix too.
        Raises:
            ValueError: prefixes are wanted of semantic IDs of several parts.
        """
        super().__init__()
        columns = [torch.arange(catalogue.items + 1), catalogue.categories]
        keys = torch.where(torch.stack(columns, 1) > 0, torch.stack(columns, 1), -1)
        if prefixes and catalogue.codes is not None:
            keys = torch.cat([keys, Prefixes(catalogue.codes).numbers], 1)
        self.register_buffer("_keys", keys, persistent=False)
        self.network = nn.Sequential(nn.Linear(2 * keys.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def _logits(self, counts: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self.network(torch.cat(scaled(counts, lengths, next(self.parameters()).dtype), 1))
        return logits.squeeze(-1)

    def forward(self, batch: Batch) -> Tensor:
        """(batch,) of histories a row."""
        keys = self.get_buffer("_keys")
        if not batch.histories.shape[1]:
            return self._logits(keys.new_zeros(len(batch), keys.shape[1]), batch.lengths)
        events, target = keys[batch.histories], keys[batch.items]
        return self._logits(shared(events, target), batch.lengths)

    def request(self, history: Tensor, candidates: Tensor) -> Tensor:
        """(candidates,) for one history (length,)."""
        keys = self.get_buffer("_keys")
        lengths = torch.tensor([len(history)], device=history.device)
        if not len(history):
            return self._logits(keys.new_zeros(len(candidates), keys.shape[1]), lengths)
        items, counts = torch.unique(history, return_counts=True)
        return self._logits(Histogram(keys[items], counts).of(keys[candidates]), lengths)
