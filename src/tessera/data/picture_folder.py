"""Which picture of a folder is an item's: by the whole name, never by a part of an id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tessera.artifacts.logs import log
from tessera.data.files import DataFileError
from tessera.data.joins import EXAMPLES, quoted
from tessera.data.picture_stamp import picture_files
from tessera.data.pictures import OTHER_SUFFIXES, SUFFIXES


class PictureFolder:
    """The pictures of a folder and its sub-folders.

    An item's picture is, in this order:

    1. the file whose path below the folder, without its suffix, is the raw id: `shoes/12.jpg` of `shoes/12`,
       `1.5.png` of `1.5`;
    2. the only file of a sub-folder whose name without its suffix is the raw id: `summer/12.jpg` of `12`;
    3. the file that the item's data name; then, where they name a picture file, the only one of that name with another
       suffix.

    Where several files could be meant in 2 or 3, none is taken, and the item is counted. Neither do 2 and 3 take a file
    that is another item's by 1.

    Args:
        folder: the folder.
        known: raw ids of the log.
    Raises:
        DataFileError: it is no folder, or holds no picture.
    """

    def __init__(self, folder: Path, known: Collection[str]) -> None:
        if not folder.is_dir():
            raise DataFileError(f"{folder}: not a folder; `images` is a folder of pictures named by raw item id")
        self.folder = folder
        self.several: dict[str, list[str]] = {}
        """Item -> files that it could mean; it has no picture."""
        self.doubled: dict[str, list[str]] = {}
        """Item -> files of its own name with different suffixes; the first is its picture."""
        self._known = known
        self._whole: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._files: set[str] = set()
        self._taken: set[str] = set()
        other: Counter[str] = Counter()
        for path in sorted(Path(file.path) for file in picture_files(str(folder))):
            suffix = path.suffix.lower()
            if suffix in OTHER_SUFFIXES:
                other[suffix] += 1
            if suffix not in SUFFIXES or path.name.startswith("._"):  # what macOS leaves beside a file
                continue
            name = path.relative_to(folder).as_posix()
            self._whole.setdefault(_without_suffix(name), []).append(name)
            self._by_name.setdefault(path.name, []).append(name)
            self._by_stem.setdefault(path.stem, []).append(name)
            self._files.add(name)
        left_out = ", ".join(f"{n:,} {suffix}" for suffix, n in other.most_common())
        if not self._files:
            passed = f"; it holds {left_out}, which are not read" if left_out else ""
            raise DataFileError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)}){passed}")
        if left_out:
            log.warning("%s: pictures of other formats are left out: %s", folder, left_out)
        self.left_out = dict(other)

    @property
    def left(self) -> Iterator[str]:
        """Paths, without their suffixes, of pictures that were found for no item; of several suffixes one is enough."""
        return (name for name, files in self._whole.items() if not self._taken.intersection(files))

    def find(self, raw_id: str, named: Iterable[str] = ()) -> str | None:
        """Path of the item's picture below the folder, None where it has none.

        Args:
            raw_id: the item.
            named: names of its picture in the data: file names, paths or URLs.
        """
        file = self._choose(raw_id, named)
        if file is not None:
            self._taken.add(file)
        return file

    def _choose(self, raw_id: str, named: Iterable[str]) -> str | None:
        whole = self._whole.get(raw_id) or ([raw_id] if raw_id in self._files else [])
        if len(whole) > 1:
            self.doubled.setdefault(raw_id, whole)
        if whole:
            return whole[0]
        for files in self._further(raw_id, named):
            if len(files) == 1:
                return files[0]
            if files:
                self.several.setdefault(raw_id, files)
                return None
        return None

    def _further(self, raw_id: str, named: Iterable[str]) -> Iterator[list[str]]:
        """Files that an item could mean, the better reason first."""
        yield self._nobodys(self._by_stem.get(raw_id, []))
        for name in named:
            parts = _parts(name)
            if parts:
                yield self._named(parts)
                yield self._other_suffix(parts)

    def _nobodys(self, files: list[str]) -> list[str]:
        """The only file, unless it is another item's by its whole name; several stay several."""
        if len(files) > 1:
            return files
        return [file for file in files if _without_suffix(file) not in self._known and file not in self._known]

    def _named(self, parts: list[str]) -> list[str]:
        """Files of this very name, with their suffix or without; of a path only those whose own path ends with it."""
        exact = "/".join(parts)
        if exact in self._files:
            return [exact]
        files = [file for file in self._by_name.get(parts[-1], []) if self._ends_with(file, parts)]
        return files or self._whole.get(exact, [])[:1]

    def _other_suffix(self, parts: list[str]) -> list[str]:
        """Files of this name with another suffix, where it is that of a picture file."""
        if not parts[-1].lower().endswith(SUFFIXES + OTHER_SUFFIXES):
            return []
        files = self._by_stem.get(_without_suffix(parts[-1]), [])
        return self._nobodys([f for f in files if self._ends_with(f, [*parts[:-1], PurePosixPath(f).name])])

    def _ends_with(self, file: str, parts: list[str]) -> bool:
        whole = (self.folder.absolute() / file).parts
        return list(whole[-len(parts) :]) == parts

    def tell(self) -> dict[str, int]:
        """Say in the log whose pictures are not clear; the counts for `ingest.json`."""
        for what, items in (
            ("could have several pictures and get none", self.several),
            ("have several pictures of their name and get the first", self.doubled),
        ):
            if items:
                examples = "; ".join(f"{item!r}: {quoted(files)}" for item, files in list(items.items())[:EXAMPLES])
                log.warning("%s: %s items %s (%s)", self.folder, f"{len(items):,}", what, examples)
        return {
            "files": len(self._files),
            "several": len(self.several),
            "doubled": len(self.doubled),
            "other_formats": sum(self.left_out.values()),
        }


def _without_suffix(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)]


def _parts(name: str) -> list[str]:
    """The parts of a path, `\\` or `/` between them; of a URL the file name alone."""
    if "://" in name:
        return [unquote(urlsplit(name).path.rsplit("/", 1)[-1])]
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
