"""Where raw files are: under `$TESSERA_DATA`, under the working directory, or behind a URL with a checksum."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tessera.data.downloads import DataFileError, download, is_url
from tessera.settings.base import cut, did_you_mean

__all__ = ["DataFileError", "check_name", "find", "is_url", "model_files", "parts"]

_PART = re.compile(r"part([-_.0-9]|$)")
_PATTERN = re.compile(r"[{}]|<[a-z][a-z0-9_]*>")


def find(path: str, sha256: str | None = None, key: str = "path") -> Path:
    """The local place of a file or folder of the config; a URL is downloaded once and verified.

    Args:
        key: of the config, for messages about a URL.
    Raises:
        FileNotFoundError: nothing is there; the message names the places looked at and the nearest name.
        DataFileError: no path at all; a URL that cannot be fetched, or whose file has another checksum.
    """
    if is_url(path):
        return download(path, sha256, key)
    if not path.strip() or "\0" in path:
        raise DataFileError(f"{path!r} is no path")
    try:
        given = Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(f"{path}: there is no user {path.split('/')[0][1:]!r}, whose home ~ would be") from None
    bases = [Path(os.environ["TESSERA_DATA"])] if os.environ.get("TESSERA_DATA") else []
    candidates = [given] if given.is_absolute() else [base / given for base in [*bases, Path()]]
    for place in candidates:
        try:
            if place.exists():
                return place
        except OSError as error:  # a folder on the way may not be read, or a name is too long
            raise DataFileError(f"{cut(path)}: cannot be looked for ({error.strerror})") from None
    looked = " and ".join(str(place) for place in candidates)
    unset = "" if bases or given.is_absolute() else " (TESSERA_DATA is not set)"
    raise FileNotFoundError(f"{path}: no such file or folder; looked at {looked}{unset}{_nearest(candidates)}")


def parts(path: Path) -> list[Path]:
    """The files of a table: itself, or what a folder holds as Spark, Dask and others write it, in natural order.

    Raises:
        DataFileError: the folder holds neither `part*` nor `*.parquet` files.
    """
    if not path.is_dir():
        return [path]
    files = [file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path))]
    chosen = [file for file in files if _PART.match(file.name)] or [f for f in files if f.suffix == ".parquet"]
    chosen = [file for file in chosen if file.stat().st_size]
    if not chosen:
        names = sorted(entry.name for entry in path.iterdir())[:12]
        content = f" (holds: {', '.join(names)})" if names else " (it is empty)"
        raise DataFileError(
            f"{path}: a folder without part-* or *.parquet files; expected a file, or such a folder{content}"
        )
    return sorted(chosen, key=lambda file: _natural(file.relative_to(path).as_posix()))


def files_below(path: Path) -> list[Path]:
    """A file itself, or all files of a folder that are not hidden."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))


def _is_hidden(path: Path) -> bool:
    """What is no data: `_SUCCESS`, `_metadata`, `.part-0.crc`."""
    return any(name.startswith((".", "_")) and "=" not in name for name in path.parts)


def _natural(text: str) -> list[tuple[int, str]]:
    """Numbers in a name by their size: part.2 before part.10."""
    return [(int(piece), "") if piece.isdigit() else (0, piece) for piece in re.split(r"([0-9]+)", text)]


def check_name(file: Path) -> None:
    """Refuse a file that no rule can read, since Snakemake takes a part of its path for a pattern of its own.

    Raises:
        DataFileError: so it is.
    """
    if (part := _PATTERN.search(str(file))) is not None:
        raise DataFileError(f"{file}: {part[0]} in a path is a pattern to Snakemake; rename it, or name a link to it")


def model_files(folder: Path) -> list[Path]:
    """What of a language model's folder is read: weights, tokenizer and descriptions, by name."""
    kinds = {".json", ".safetensors", ".txt", ".model", ".jinja"}
    files = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    return sorted(path for path in files if path.suffix in kinds)


def _nearest(candidates: list[Path]) -> str:
    """Which part of the path is wrong, and what stands there instead."""
    for place in candidates:
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
