"""Texts that a language model reads: of a frozen one their states, keys and values are constants of the items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import Progress, log
from tessera.language.reasoning import LatentReasoner, Prefix
from tessera.language.tokens import length_batches, pad_rows
from tessera.training.machine import Machine

GIB = 2**30


class Prefixes:
    """The prefixes of all items: kept on the model's device, all in one tensor a layer, or read again when asked.

    Both ways give the same numbers up to rounding (a text is padded to another length). Of a model that learns they are
    always read again, with gradients.
    """

    def __init__(
        self,
        reasoner: LatentReasoner,
        rows: Sequence[Sequence[int]],
        cache_gib: float | None,
        batch_tokens: int,
        machine: Machine,
        recompute: bool = False,
    ) -> None:
        """
        Args:
            reasoner: on its device, frozen but for the attention, or with adapters that learn.
            rows: token ids of each text, without thoughts and end token.
            cache_gib: memory of the model's device that they may take; None where the model learns: none are kept.
            batch_tokens: padded tokens a batch.
            machine: precision.
            recompute: whether what is made of a batch is made again for its gradient, where the model learns.
        """
        self.reasoner, self.rows, self.batch_tokens, self.machine = reasoner, rows, batch_tokens, machine
        self.recompute = recompute
        self.lengths = np.array([len(row) for row in rows], np.int64)
        self.kept = False
        if cache_gib is not None:
            self._settle(cache_gib)

    @torch.no_grad()
    def _settle(self, cache_gib: float) -> None:
        """Keep what can be kept."""
        rows = self.rows
        one = self._read(np.array([int(self.lengths.argmin())]))
        parts = [one.states, *(part for layer in one.cache for part in layer)]
        parts += [one.inputs] if one.inputs is not None else []
        token = sum(part.numel() * part.element_size() for part in parts) / int(one.lengths[0])
        needed = token * int(self.lengths.sum()) / GIB
        self.kept = needed <= cache_gib
        log.info(
            "%d texts of %d tokens take %.3g GiB: %s", len(rows), self.lengths.sum(), needed,
            "read once and kept" if self.kept else f"more than cache_gib ({cache_gib:g}), so read batch by batch",
        )  # fmt: skip
        if self.kept:
            self._keep(one)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Indices into `rows`, in batches of like length of at most `batch_tokens`."""
        return length_batches(self.lengths[rows], self.batch_tokens)

    def of(self, rows: np.ndarray) -> Prefix:
        """The prefixes of some texts, padded on the right; with gradients where the model learns."""
        if not self.kept:
            return self._read(rows)
        lengths = torch.from_numpy(self.lengths[rows]).to(self.states.device)
        within = torch.arange(int(lengths.max()), device=lengths.device)
        mask = within < lengths[:, None]
        # padding shows some other token, which no mask lets through
        index = torch.where(mask, self.starts[torch.from_numpy(rows).to(lengths.device)][:, None] + within, 0)
        positions = within.expand_as(mask)
        cache = tuple((keys[index].transpose(1, 2), values[index].transpose(1, 2)) for keys, values in self.cache)
        totals = self.totals[torch.from_numpy(rows).to(lengths.device)]
        inputs = self.inputs[index] if self.inputs is not None else None
        return Prefix(self.states[index], mask.long(), positions, lengths, cache, totals, inputs)

    def _read(self, rows: np.ndarray) -> Prefix:
        device = self.reasoner.model.device
        ids, mask = pad_rows([self.rows[place] for place in rows], self.reasoner.model.pad_token)
        with self.machine.autocast():
            return self.reasoner.read(ids.to(device), mask.to(device))

    def _keep(self, one: Prefix) -> None:
        """Read everything into flat tensors: (tokens, width) states, (tokens, heads, head dim) keys and values."""
        tokens, device = int(self.lengths.sum()), one.states.device
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.starts = torch.from_numpy(starts).to(device)
        self.states = one.states.new_empty(tokens, one.states.shape[-1])
        self.totals = one.total.new_empty(len(self.rows), one.total.shape[-1])
        self.inputs = one.inputs.new_empty(tokens, one.inputs.shape[-1]) if one.inputs is not None else None

        def room(part: Tensor) -> Tensor:
            return part.new_empty(tokens, part.shape[1], part.shape[3])

        self.cache = tuple((room(keys), room(values)) for keys, values in one.cache)
        with Progress("texts", len(self.rows), "texts") as progress:
            for batch in length_batches(self.lengths, self.batch_tokens):
                prefix = self._read(batch)
                mask = prefix.mask.bool()
                index = (self.starts[torch.from_numpy(batch).to(device)][:, None] + prefix.positions)[mask]
                self.states[index] = prefix.states[mask]
                if self.inputs is not None and prefix.inputs is not None:
                    self.inputs[index] = prefix.inputs[mask]
                self.totals[torch.from_numpy(batch).to(device)] = prefix.total
                for (keys, values), (read_keys, read_values) in zip(self.cache, prefix.cache, strict=True):
                    keys[index] = read_keys.transpose(1, 2)[mask]
                    values[index] = read_values.transpose(1, 2)[mask]
                progress.update(len(batch))
