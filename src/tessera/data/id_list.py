"""Lists of raw ids, as a person keeps them: a text file, one a line."""

from __future__ import annotations

from pathlib import Path


def read_ids(path: Path, what: str) -> list[str]:
    """The ids of a text file, one a line, each once; empty lines are skipped.

    Raises:
        ValueError: it is no text, or holds no id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 text (byte {error.start}); expected one {what} id a line") from None
    ids = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        raise ValueError(f"{path}: is empty; expected one {what} id a line")
    return ids
