"""Text files as blocks of whole lines: plain or gzip, in memory that does not grow with the file."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from isal.igzip import IGzipFile
from isal.igzip_lib import IsalError

from tessera.data.files import DataFileError

BLOCK_BYTES = 16 << 20
# the package's stubs call its exception an instance of one
_DAMAGED = (EOFError, cast(type[Exception], IsalError), gzip.BadGzipFile)
_NEWLINE = 10
_PIECE = 1 << 18


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, through gzip when its first bytes say so."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, IGzipFile(path, "rb")) if packed else path.open("rb")  # type: ignore[no-untyped-call]


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
    found = [(view[at : at + _PIECE] == _NEWLINE).nonzero()[0] + at for at in range(0, len(view), _PIECE)]
    return Block(first, data, np.concatenate(found))


def blocks(path: Path, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """A file, plain or gzip, as blocks of whole lines of about `size` bytes: memory does not grow with the file.

    Raises:
        DataFileError: the gzip stream is damaged or cut off.
    """
    line = 1
    try:
        with open_bytes(path) as file:
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
    except _DAMAGED as error:
        raise DataFileError(f"{path}: the gzip stream is damaged after line {line - 1:,} ({error})") from None


def lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Number and text of each line of a small file that must be whole.

    Raises:
        DataFileError: a line is not in the encoding.
    """
    for block in blocks(path):
        for number, raw in enumerate(block.data.split(b"\n")[:-1], block.first):
            try:
                yield number, raw.decode(encoding).rstrip("\r")
            except UnicodeDecodeError as error:
                raise DataFileError(f"{path}: line {number}: not {encoding} text ({error})") from None
