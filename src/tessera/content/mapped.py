"""Buffers of a model that memory may not hold: they lie in files that are mapped into memory, page by page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

PIECE = 65_536
"""Rows of a table that are gone through at once."""


def pieces(rows: int) -> list[slice]:
    """All rows of a table, `PIECE` at a time."""
    return [slice(start, min(start + PIECE, rows)) for start in range(0, rows, PIECE)]


def in_file(folder: Path, values: Tensor) -> Tensor:
    """The same numbers in a file of a folder that is mapped into memory: what nobody touches need not stay there.

    The file has no name any more when this returns, so that it goes with the process, however that ends. It is no copy
    to go on from: a checkpoint is.

    Raises:
        OSError: the disk has no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="mapped-", dir=folder)
    try:
        # all of it now: a page for which the disk has no room later would end the process without a word
        os.posix_fallocate(handle, 0, max(1, values.numel() * values.element_size()))
        made = torch.from_file(name, shared=True, size=values.numel(), dtype=values.dtype).view(values.shape)
    except OSError as error:
        room = values.numel() * values.element_size() / 2**30
        raise OSError(f"{folder}: {room:.1f} GiB are needed for a table of {tuple(values.shape)}: {error}") from None
    finally:
        os.close(handle)
        Path(name).unlink()
    for part in pieces(len(values)):
        if values[part].any():  # zeros are there already
            made[part] = values[part]
    return made


class Mapped(nn.Module):
    """A part of a model whose buffers stay where they are when the model is moved to a device.

    In training they lie in files of a folder (`place`); where the model is judged they are pages of its own file.
    """

    def __init__(self, mapped: bool = False) -> None:
        """
        Args:
            mapped: whether buffers are kept so; else they are as all buffers.
        """
        super().__init__()
        self.mapped = mapped
        self.folder: Path | None = None

    def place(self, folder: Path) -> None:
        """Move the buffers into files of a folder, where they are to be mapped.

        Raises:
            OSError: the disk has no room for them.
        """
        if self.mapped:
            self.folder = folder
            for name, buffer in list(self.named_buffers(recurse=False)):
                setattr(self, name, in_file(folder, buffer))

    def rows_like(self, table: Tensor) -> Tensor:
        """Zeros of the shape of a buffer in float32, in memory of the same kind."""
        zeros = torch.zeros(table.shape, device=table.device)
        return zeros if self.folder is None else in_file(self.folder, zeros)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        return self if self.mapped else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, local_metadata: Any, strict: bool, *more: Any
    ) -> None:
        if self.mapped and self.folder is None:  # pages of the file that was read
            for name, buffer in list(self.named_buffers(recurse=False)):
                given = state_dict.get(prefix + name)
                if given is not None and given.shape == buffer.shape and given.dtype == buffer.dtype:
                    setattr(self, name, given)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *more)


class Table(Mapped):
    """Rows (rows, dim) that are read by their number."""

    rows: Tensor

    def __init__(self, rows: int, dim: int, mapped: bool = False) -> None:
        super().__init__(mapped)
        self.register_buffer("rows", torch.zeros(rows, dim))

    def forward(self, at: Tensor) -> Tensor:
        """(..., dim) rows `at` (...), on its device."""
        return self.rows[at.to(self.rows.device)].to(at.device)
