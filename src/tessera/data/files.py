"""Where raw files are: under `$TESSERA_DATA`, under the working directory, or behind a URL with a checksum."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tessera.artifacts.files import atomic
from tessera.artifacts.logs import Progress, log
from tessera.settings.base import did_you_mean

DOWNLOADS = Path("data/downloads")
LARGEST_DOWNLOAD = 200 << 30
"""Bytes of a file that is fetched."""


class DataFileError(ValueError):
    """A raw file that cannot be read as what the config says it is."""


def is_url(path: str) -> bool:
    """Whether a path of the config is to be downloaded."""
    return path.startswith(("http://", "https://", "ftp://"))


def find(path: str, sha256: str | None = None) -> Path:
    """The local place of a file or folder of the config; a URL is downloaded once and verified.

    Raises:
        FileNotFoundError: nothing is there; the message names the places looked at and the nearest name.
        DataFileError: a URL without a checksum, or with another one than the config says.
    """
    if is_url(path):
        return download(path, sha256)
    try:
        given = Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(f"{path}: no such user, whose home `~` stands for") from None
    bases = [Path(os.environ["TESSERA_DATA"])] if os.environ.get("TESSERA_DATA") else []
    places = [given] if given.is_absolute() else [base / given for base in [*bases, Path()]]
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place) for place in places)
    unset = "" if bases or given.is_absolute() else " (TESSERA_DATA is not set)"
    raise FileNotFoundError(f"{path}: no such file or folder; looked at {looked}{unset}{_nearest(places)}")


def parts(path: Path) -> list[Path]:
    """The files of a table: itself, or what a folder holds as Spark, Dask and others write it, in natural order.

    Raises:
        DataFileError: the folder holds neither `part*` nor `*.parquet` files.
    """
    if not path.is_dir():
        return [path]
    files = [file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path))]
    found = [file for file in files if file.name.startswith("part")] or [f for f in files if f.suffix == ".parquet"]
    found = [file for file in found if file.stat().st_size]
    if not found:
        names = sorted(entry.name for entry in path.iterdir())[:12]
        told = f" (holds: {', '.join(names)})" if names else " (it is empty)"
        raise DataFileError(
            f"{path}: a folder without part-* or *.parquet files; expected a file, or such a folder{told}"
        )
    return sorted(found, key=lambda file: _natural(file.relative_to(path).as_posix()))


def _is_hidden(path: Path) -> bool:
    """What is no data: `_SUCCESS`, `_metadata`, `.part-0.crc`."""
    return any(name.startswith((".", "_")) and "=" not in name for name in path.parts)


def _natural(text: str) -> list[tuple[int, str]]:
    """Numbers in a name by their size: part.2 before part.10."""
    return [(int(piece), "") if piece.isdigit() else (0, piece) for piece in re.split(r"([0-9]+)", text)]


def model_files(folder: Path) -> list[Path]:
    """What of a language model's folder is read: weights, tokenizer and descriptions, by name."""
    kinds = {".json", ".safetensors", ".txt", ".model", ".jinja"}
    return sorted(path for path in folder.iterdir() if path.suffix in kinds)


def _nearest(places: list[Path]) -> str:
    """Which part of the path is wrong, and what stands there instead."""
    for place in places:
        parent = place.parent
        wrong = place
        while not parent.exists():
            wrong, parent = parent, parent.parent
        if parent.is_dir() and parent != parent.parent:
            names = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
            hint = did_you_mean(wrong.name, names)
            if hint:
                return f"; {parent} holds no {wrong.name!r}{hint}"
    return ""


def download(url: str, sha256: str | None) -> Path:
    """Fetch a URL into `data/downloads` unless it is there with the right checksum.

    Raises:
        DataFileError: there is no checksum, or the bytes have another one.
    """
    if sha256 is None:
        raise DataFileError(f"{url}: a URL needs the key 'sha256' beside it, the checksum of the file")
    name = re.sub(r"[^\w.-]+", "_", url.split("?")[0].rstrip("/").rsplit("/", 1)[-1])[-80:]
    target = DOWNLOADS / f"{sha256[:12]}-{name}"
    if target.is_file() and _checksum(target) == sha256:
        return target
    log.info("downloading %s", url)
    with atomic(target) as temporary:
        try:
            _fetch(url, temporary)
        except (OSError, HTTPException) as error:  # among the first: HTTP errors, no connection, time is over
            raise DataFileError(f"{url}: cannot be downloaded: {error}") from None
        found = _checksum(temporary)
        if found != sha256:
            raise DataFileError(f"{url}: the file has sha256 {found}, expected {sha256}")
    return target


def _fetch(url: str, target: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0) or None
        bound = min(LARGEST_DOWNLOAD, shutil.disk_usage(target.parent).free)
        with Progress("download", total, "bytes") as progress:
            done = total or 0
            while done <= bound and (block := answer.read(1 << 20)):
                file.write(block)
                progress.update(len(block))
                done = max(done, progress.done)
        if done > bound:
            raise DataFileError(f"{url}: more than {bound:,} bytes, which is all that may be or that the disk holds")
        if total and progress.done != total:
            raise DataFileError(f"{url}: broke off after {progress.done:,} of {total:,} bytes")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
