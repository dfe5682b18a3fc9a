"""Files as bytes: whatever they are packed with, in whatever encoding, readers get UTF-8 with newlines."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa
from isal.igzip import IGzipFile
from isal.igzip_lib import IsalError

from tessera.artifacts.logs import log
from tessera.data.files import DataFileError

SAMPLE_BYTES = 16 << 20
"""So much of a file is looked at to tell its encoding."""
_PIECE = 1 << 18
# the package's stubs call its exception an instance of one
_ISAL = cast(type[Exception], IsalError)
_DAMAGED = (EOFError, _ISAL, lzma.LZMAError, zlib.error, zipfile.BadZipFile, OSError)
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8",
          codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
# first bytes of files that are no text and no Parquet -> what they are
_OTHERS = {
    b"ARROW1": "an Arrow or Feather file", b"\x89HDF": "an HDF5 file", b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an Excel workbook", b"\x93NUMPY": "a numpy array", b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle", b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x04\x22\x4d\x18": "packed with lz4",
}  # fmt: skip
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _zip_member(path: Path) -> BinaryIO:
    archive = zipfile.ZipFile(path)
    # what macOS adds is no content
    members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = [member.filename for member in members]
        if "[Content_Types].xml" in names:
            raise DataFileError(f"{path}: an Excel workbook; save its sheet as CSV")
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise DataFileError(f"{path}: a zip of {len(names)} files ({shown}), expected one; unpack it and name the file")
    if members[0].flag_bits & 1:
        raise DataFileError(f"{path}: the zip is encrypted; unpack it")
    return cast(BinaryIO, archive.open(members[0]))


_Opener = Callable[[Path], BinaryIO]
_PACKINGS: dict[str, tuple[re.Pattern[bytes], _Opener]] = {
    "gzip": (re.compile(rb"\x1f\x8b"), lambda path: cast(BinaryIO, IGzipFile(path, "rb"))),  # type: ignore[no-untyped-call]
    "bzip2": (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), lambda path: cast(BinaryIO, bz2.BZ2File(path))),
    "xz": (re.compile(rb"\xfd7zXZ\x00"), lambda path: cast(BinaryIO, lzma.LZMAFile(path))),  # noqa: SIM115
    "zip": (re.compile(rb"PK(\x03\x04|\x05\x06)"), _zip_member),
    "zstandard": (
        re.compile(rb"\x28\xb5\x2f\xfd"),
        lambda path: cast(BinaryIO, pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")),
    ),
}


class _Unpacking(io.RawIOBase):
    """A packed file; what is wrong with it is told with its name."""

    def __init__(self, path: Path, kind: str, opener: _Opener) -> None:
        self._path, self._kind, self._done = path, kind, 0
        try:
            self._file = opener(path)
        except _DAMAGED as error:
            raise self._damaged(error) from None
        # what was unpacked before the damage is handed over first
        self._read: Callable[[int], bytes] = getattr(self._file, "read1", self._file.read)

    def _damaged(self, error: Exception) -> DataFileError:
        after = f" after {self._done:,} bytes" if self._done else ""
        fault = f"the {self._kind} stream is damaged or breaks off{after}"
        return DataFileError(f"{self._path}: {fault} ({error}); fetch or copy the file again")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        try:
            data = self._read(len(view))
        except _DAMAGED as error:
            raise self._damaged(error) from None
        view[: len(data)] = data
        self._done += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            if hasattr(self, "_file"):
                self._file.close()
            super().close()


class _Recoded(io.RawIOBase):
    """A text file as UTF-8 with newlines; what cannot be decoded becomes bytes that the readers refuse."""

    def __init__(self, path: Path, file: BinaryIO, form: TextForm) -> None:
        self._path, self._file, self._form = path, file, form
        self._wide = form.encoding.startswith(("utf-16", "utf-32"))
        errors = "surrogatepass" if self._wide else "surrogateescape"
        self._decoder = None if form.encoding == "utf-8" else codecs.getincrementaldecoder(form.encoding)(errors)
        # a mark of UTF-8 stands before texts in other encodings, too
        self._rest = b""
        start = file.read(len(codecs.BOM_UTF8))
        if start != codecs.BOM_UTF8:
            self._rest = self._recoded(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = b"x"
        while not self._rest and data:
            data = self._file.read(_PIECE)
            self._rest = self._recoded(data)
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _recoded(self, data: bytes) -> bytes:
        if self._decoder is not None:
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise DataFileError(f"{self._path}: not {self._form.encoding} text ({error})") from None
            data = text.encode("utf-8", "surrogatepass" if self._wide else "surrogateescape")
        return data.replace(b"\r", b"\n") if self._form.carriage_returns else data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            super().close()


class TextForm(NamedTuple):
    """How a text file is written."""

    encoding: str
    """A codec; `utf-8` is read as it is."""
    carriage_returns: bool
    """Whether carriage returns alone end the lines."""


def unpacked(path: Path) -> BinaryIO:
    """Open a file for reading its bytes, through gzip, bzip2, xz, zstandard or a zip of one file.

    Raises:
        DataFileError: a folder, or a packed file that is damaged (also later, on reading).
    """
    if path.is_dir():
        raise DataFileError(f"{path}: a folder, expected a file")
    with path.open("rb") as file:
        start = file.read(16)
    for kind, (mark, opener) in _PACKINGS.items():
        if mark.match(start):
            return io.BufferedReader(_Unpacking(path, kind, opener), _PIECE)
    return path.open("rb")


def head(path: Path, size: int = 64) -> bytes:
    """The first bytes of a file, unpacked."""
    with unpacked(path) as file:
        return file.read(size)


def open_bytes(path: Path, encoding: str | None = None) -> BinaryIO:
    """Open a text file as UTF-8 bytes with newlines, unpacked.

    Args:
        encoding: a codec of Python; None tells it from the file (UTF-8, UTF-16, UTF-32, Latin-1), and says so where
            it is not UTF-8.
    Raises:
        DataFileError: the file is no text, or packed and damaged (also later, on reading).
    """
    form = text_form(path, encoding)
    file = unpacked(path)
    if form == TextForm("utf-8", False):
        return file
    return io.BufferedReader(_Recoded(path, file, form), _PIECE)


def text_form(path: Path, encoding: str | None = None) -> TextForm:
    """Encoding and line ends of a text file, from its first 16 MiB; told once where they are unusual.

    Raises:
        DataFileError: the file is no text.
    """
    status = path.stat()
    return _text_form(path, encoding, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _text_form(path: Path, encoding: str | None, size: int, changed: int) -> TextForm:
    with unpacked(path) as file:
        sample = file.read(SAMPLE_BYTES)
    for start, what in _OTHERS.items():
        if sample.startswith(start):
            raise DataFileError(f"{path}: {what}; expected text (CSV, JSON) or Parquet")
    codec = codecs.lookup(encoding).name if encoding else _encoding(path, sample)
    text = sample
    if codec.startswith(("utf-16", "utf-32")):
        text = sample[: len(sample) // 4 * 4].decode(codec, "replace").encode("utf-8", "replace")
    form = TextForm(codec, b"\r" in text and b"\n" not in text)
    if encoding is None and codec != "utf-8":
        log.warning("%s: read as %s, for it is no UTF-8; say `encoding` if that is wrong", path, codec)
    if form.carriage_returns:
        log.info("%s: carriage returns end its lines", path)
    return form


def _encoding(path: Path, sample: bytes) -> str:
    for mark, name in _MARKS.items():
        if sample.startswith(mark):
            return name
    if b"\0" in sample[:4096]:
        return _without_mark(path, sample[:4096])
    if sample.isascii():
        return "utf-8"
    return "cp1252" if _is_western(sample) else "utf-8"


def _without_mark(path: Path, start: bytes) -> str:
    """UTF-16 whose first bytes do not say so: every other byte of plain text is zero."""
    units = len(start) // 2
    for name, zeros in (("utf-16-le", start[1::2].count(0)), ("utf-16-be", start[0::2].count(0))):
        if zeros > 0.4 * units and start.count(0) < 1.2 * zeros:
            return name
    raise DataFileError(f"{path}: no text (it holds zero bytes); expected CSV, JSON or Parquet")


def _is_western(sample: bytes) -> bool:
    """Whether lines that are no UTF-8 look like a western language in one byte a letter (Latin-1, Windows-1252).

    There accented letters stand alone, or two together, beside plain ones. A file with more lines of good UTF-8 beyond
    ASCII is UTF-8 with damaged lines.
    """
    good = western = other = 0
    for line in sample.split(b"\n")[:-1] or [sample]:
        if line.isascii():
            continue
        try:
            line.decode()
        except UnicodeDecodeError:
            for run in _HIGH_RUN.finditer(line):
                if run.end() - run.start() == 1 and line[run.start()] < 0xC0:
                    continue  # a sign, such as a curly quote, which tells nothing
                beside = {*line[max(run.start() - 1, 0) : run.start()], *line[run.end() : run.end() + 1]}
                alike = run.end() - run.start() <= 2 and bool(beside & _LETTERS)
                western, other = western + alike, other + (not alike)
        else:
            good += 1
    return western > max(good, 4 * other)
