"""What a folder of pictures holds, as one small file that rules read in place of every picture.

The stamp of a dataset, `raw/pictures.json`, is written with its raw items. When a run starts, the folder is looked
through once (names, sizes and times; no picture is opened), and the stamp is written anew where they have changed: what
reads pictures is stale then, and nothing else. Jobs, of which a cluster may start thousands, look at no folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.places import far, near
from tessera.data.pictures import OTHER_SUFFIXES, SUFFIXES

_SHOWN = tuple(SUFFIXES + OTHER_SUFFIXES)


def picture_files(folder: str) -> Iterator[os.DirEntry[str]]:
    """The picture files below a folder, those of other formats too, links to folders not followed."""
    inner = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.path)
                elif entry.name.lower().endswith(_SHOWN) and not (entry.is_symlink() and Path(entry.path).is_dir()):
                    yield entry
    except PermissionError:
        return
    for path in inner:
        yield from picture_files(path)


def _state(entry: os.DirEntry[str]) -> str:
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere
        return f"{entry.path}\0-"
    return f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}"


def _fingerprint(lines: list[str], folder: str) -> str:
    """Of lines that begin with paths below the folder, wherever that is and in whatever order it is listed."""
    begin = len(folder)
    listing = "\n".join(sorted(line[begin:] for line in lines))
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()[:32]


@cache
def names_fingerprint(folder: str) -> str:
    """Hash of the names of all pictures below a folder: which item has which picture depends on no more."""
    return _fingerprint([entry.path for entry in picture_files(folder)], folder)


def _stamp(folder: str | None) -> dict[str, object]:
    lines = [_state(entry) for entry in picture_files(folder)] if folder is not None else []
    return {"folder": folder, "pictures": len(lines), "fingerprint": _fingerprint(lines, folder or "")}


def write_stamp(path: Path, folder: str | None) -> None:
    """Write the stamp of a folder as it is now; None is a dataset without pictures."""
    inside = folder is not None and Path(folder).is_relative_to(path.parent)
    write_json(path, {**_stamp(folder), "folder": near(str(folder), path.parent) if inside else folder})


def look_again(path: Path) -> bool:
    """Write a stamp anew where its folder no longer holds what it says; whether it was.

    Where there is no stamp, or its folder is gone, nothing is done: the one is made by a rule, the other is told by
    whoever looks for a picture.

    Raises:
        ValueError: the stamp is damaged.
    """
    if not path.is_file():
        return False
    recorded = read_json(path)
    if recorded.get("folder") is None:
        return False
    folder = far(recorded["folder"], path.parent)
    if not Path(folder).is_dir():
        return False
    current = {**_stamp(folder), "folder": recorded["folder"]}
    if current != recorded:
        write_json(path, current)
    return bool(current != recorded)
