"""Atomic writing: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors of a disk, a quota or a limit that takes no more."""


# `.NAME.SUFFIX.abcd1234.SUFFIX`, as `atomic` names what it writes, and `.tmpAbc123`, as safetensors does beside that
_TEMPORARY = re.compile(r"\.[^/]*?(?P<suffix>(?:\.[^./]+)?)\.[a-z0-9_]{8}(?P=suffix)|\.tmp[A-Za-z0-9]{6}")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder that replaces `path` when the block ends well, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            yield temporary
        except Exception as error:
            full = _of_the_disk(error, path)
            if full is None:
                raise
            raise full from error
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _of_the_disk(error: BaseException, path: Path) -> OSError | None:
    """The error of a disk that takes no more, with the path: libraries tell it in words of their own, without one."""
    while True:
        code = getattr(error, "errno", None)
        match = re.search(r"errno (\d+)|os error (\d+)", str(error))
        code = code if code is not None else int(match[1] or match[2]) if match else None
        if code is None and re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # numpy
            code = errno.ENOSPC
        if code in NO_ROOM:
            return OSError(code, f"cannot be written: {os.strerror(code)}", str(path))
        if error.__context__ is None:
            return None
        error = error.__context__


def half_written(folder: Path) -> list[Path]:
    """Files below a folder that `atomic` was writing when its process was killed, or is writing at this moment."""
    return sorted(path for path in folder.rglob(".*") if _TEMPORARY.fullmatch(path.name) and path.is_file())


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, sorted and indented so that two runs can be compared; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is none; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is cut off, damaged or no JSON ({error})") from None


def file_digest(path: str | Path) -> str:
    """Hash of a file's bytes, 16 hex digits: the fingerprint of an input artifact."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def identity(*parts: str) -> str:
    """Name of a trainer's state: changes with any part (settings, code, fingerprints of inputs), 20 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
