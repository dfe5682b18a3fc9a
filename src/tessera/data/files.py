"""Where raw files are: under `$TESSERA_DATA`, under the working directory, or behind a URL with a checksum."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

from tessera.artifacts.files import atomic
from tessera.artifacts.logs import Progress, log
from tessera.settings.base import did_you_mean

DOWNLOADS = Path("data/downloads")


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
    given = Path(path).expanduser()
    bases = [Path(os.environ["TESSERA_DATA"])] if os.environ.get("TESSERA_DATA") else []
    places = [given] if given.is_absolute() else [base / given for base in [*bases, Path()]]
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place) for place in places)
    unset = "" if bases or given.is_absolute() else " (TESSERA_DATA is not set)"
    raise FileNotFoundError(f"{path}: no such file or folder; looked at {looked}{unset}{_nearest(places)}")


def model_files(folder: Path) -> list[Path]:
    """What of a language model's folder is read: weights, tokenizer and descriptions, by name."""
    kinds = {".json", ".safetensors", ".txt", ".model", ".jinja"}
    found = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    return sorted(path for path in found if path.suffix in kinds)


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
    target = DOWNLOADS / f"{sha256[:12]}-{url.rstrip('/').rsplit('/', 1)[-1]}"
    if target.is_file() and _checksum(target) == sha256:
        return target
    log.info("downloading %s", url)
    with atomic(target) as temporary:
        with urllib.request.urlopen(url, timeout=60) as answer, temporary.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0) or None
            with Progress("download", total, "bytes") as progress:
                while block := answer.read(1 << 20):
                    file.write(block)
                    progress.update(len(block))
        found = _checksum(temporary)
        if found != sha256:
            raise DataFileError(f"{url}: the file has sha256 {found}, expected {sha256}")
    return target


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
