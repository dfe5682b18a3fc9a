"""A memory bank: the last vector of every item, and how old it is.

Encoding every item of a long history at every step costs too much; a model that learns from pictures and texts reads
the vectors of history items from here, and writes those that it has just computed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tessera.content.mapped import Mapped

NEVER = -1

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class MemoryBank(Mapped):
    """Vectors (items + 1, dim) by item id, and the step at which each was written; row 0 is the padding.

    All are persistent buffers that are changed in place, so a checkpoint of the module holds them. No gradient goes
    through the bank.
    """

    vectors: Tensor
    written: Tensor

    def __init__(
        self,
        items: int,
        dim: int,
        storage: Literal["float32", "float16", "bfloat16"] = "float32",
        mapped: bool = False,
    ) -> None:
        """An empty bank.

        Args:
            items: of the catalogue; ids count from 1.
            dim: width of the vectors.
            storage: how they are held; they are read as float32.
            mapped: whether they lie in files that are mapped into memory (`Mapped`).
        Raises:
            ValueError: there is no item, no width, or no such storage.
        """
        super().__init__(mapped)
        if items < 1 or dim < 1:
            raise ValueError(f"a memory bank needs at least one item and one column, not items={items}, dim={dim}")
        if storage not in _DTYPES:
            raise ValueError(f"storage is {storage!r}; it can be {', '.join(_DTYPES)}")
        self.register_buffer("vectors", torch.zeros(items + 1, dim, dtype=_DTYPES[storage]))
        self.register_buffer("written", torch.full((items + 1,), NEVER, dtype=torch.int64))

    @torch.no_grad()
    def write(self, items: Tensor, vectors: Tensor, step: int) -> None:
        """Keep vectors (n, dim) of items (n,) as of a step. Of an item that stands twice, the last row is kept.

        Raises:
            ValueError: shapes do not fit, an id is not of the catalogue, a vector is not finite as it is stored, or
                the step lies before one that was written. Nothing is changed then.
        """
        self._check(items)
        items = items.to(self.written.device)
        if items.ndim != 1 or vectors.shape != (len(items), self.vectors.shape[1]):
            raise ValueError(
                f"items {tuple(items.shape)} and vectors {tuple(vectors.shape)} should be (n,) and "
                f"(n, {self.vectors.shape[1]})"
            )
        if step < 0 or (len(items) and step < int(self.written[items].max())):
            raise ValueError(f"step {step} lies before one at which an item of these was written, or below 0")
        if not len(items):
            return
        stored = vectors.to(self.vectors)
        finite = stored.isfinite().all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise ValueError(f"row {row}, item {int(items[row])}: its vector is not finite as {self.vectors.dtype}")
        # an index assignment with duplicates has no order: a stable sort finds the last row of every item
        order = items.argsort(stable=True)
        ordered = items[order]
        last = torch.ones_like(ordered, dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        self.vectors[ordered[last]] = stored[order[last]]
        self.written[ordered[last]] = step

    @torch.no_grad()
    def read(self, items: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is kept of items of any shape (...), as copies; id 0 is never present.

        Returns:
            (..., dim) float32 vectors, zeros where there is none; (...) age in steps, -1 where there is none; and
            (...) whether there is one.
        Raises:
            ValueError: an id is neither of the catalogue nor 0, or an item was written after this step.
        """
        self._check(items, least=0)
        device, items = items.device, items.to(self.written.device)
        written = self.written[items]
        if items.numel() and step < int(written.max()):
            raise ValueError(
                f"step {step} lies before step {int(written.max())}, at which an item of these was written"
            )
        present = written != NEVER
        ages = torch.where(present, step - written, NEVER)
        return self.vectors[items].to(device).float(), ages.to(device), present.to(device)

    def _check(self, items: Tensor, least: int = 1) -> None:
        if items.dtype != torch.int64:
            raise ValueError(f"item ids are int64, not {items.dtype}")
        if items.numel() and not (least <= int(items.min()) and int(items.max()) < len(self.written)):
            wrong = int(items.min()) if int(items.min()) < least else int(items.max())
            raise ValueError(f"item {wrong} is not of the bank, whose ids are {least} to {len(self.written) - 1}")
