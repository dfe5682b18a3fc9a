"""Text files as blocks of whole lines, in memory that does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tessera.data.files import DataFileError
from tessera.data.packed import open_bytes

BLOCK_BYTES = 16 << 20
_NEWLINE = 10
_PIECE = 1 << 18


class Block(NamedTuple):
    """Whole lines of a file."""

    first: int
    """Number of the first line, from 1."""
    data: bytes
    """The lines; the last byte is a newline."""
    ends: npt.NDArray[np.int64]
    """Places of the newlines in `data`."""

    @property
    def lines(self) -> int:
        """How many."""
        return len(self.ends)


def as_block(first: int, data: bytes) -> Block:
    """Lines that begin at line `first`."""
    view = np.frombuffer(data, np.uint8)
    # piece by piece the comparison stays in the processor's cache
    newlines = [(view[at : at + _PIECE] == _NEWLINE).nonzero()[0] + at for at in range(0, len(view), _PIECE)]
    return Block(first, data, np.concatenate(newlines))


def blocks(path: Path, size: int = BLOCK_BYTES, encoding: str | None = None) -> Iterator[Block]:
    """A file, packed or not, as blocks of whole lines of about `size` bytes: memory does not grow with the file.

    Args:
        encoding: as for `open_bytes`.
    Raises:
        DataFileError: the file is no text, or packed and damaged or cut off.
    """
    line = 1
    with open_bytes(path, encoding) as file:
        while data := file.read(size):
            if not data.endswith(b"\n"):
                data += file.readline()
            if not data.endswith(b"\n"):
                data += b"\n"
            if line == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            block = as_block(line, data)
            yield block
            line += block.lines


def lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a small file that must be whole.

    Raises:
        DataFileError: a line is not in the encoding.
    """
    for block in blocks(path, encoding=encoding):
        for number, raw in enumerate(block.data.split(b"\n")[:-1], block.first):
            try:
                yield number, raw.decode().rstrip("\r")
            except UnicodeDecodeError as error:
                raise DataFileError(f"{path}: line {number}: not {encoding or 'utf-8'} text ({error})") from None
