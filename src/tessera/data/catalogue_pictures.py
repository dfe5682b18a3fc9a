"""The pictures of a catalogue: which item has one, and where its file is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tessera.artifacts.logs import log
from tessera.artifacts.tables import image_root, read_table
from tessera.data.pictures import open_picture

_NAMED = 3


class CataloguePictures:
    """What `items.parquet` says of pictures; its metadata name their folder (`image_root`)."""

    def __init__(self, catalogue: Path) -> None:
        self.catalogue = catalogue
        table = read_table(catalogue, "items", ["item", "image"]).sort_by("item")
        self.items: list[int] = table.column("item").to_pylist()
        """All items, ascending."""
        root = image_root(catalogue)
        names = table.column("image").to_pylist() if root is not None else []
        self._names: dict[int, str] = {item: name for item, name in zip(self.items, names, strict=bool(names)) if name}
        self._root = root

    def problem(self) -> str | None:
        """Why no picture can be opened; None where some can."""
        if not self._names:
            return f"{self.catalogue}: no item has a picture (image_root is {self._root!r})"
        return self.missing()

    def missing(self) -> str | None:
        """Why none of the pictures that the catalogue names can be opened; None where it names none, or some can."""
        if self._names and not Path(str(self._root)).is_dir():
            return f"{self._root}: no such folder; {self.catalogue} expects its pictures there (image_root)"
        return None

    def named(self) -> list[int]:
        """The items that have a picture, ascending."""
        return list(self._names)

    def __contains__(self, item: int) -> bool:
        """Whether an item has a picture."""
        return item in self._names

    def path(self, item: int) -> Path:
        """The file of an item that has a picture."""
        return Path(str(self._root), self._names[item])

    def open(self, item: int, side: int | None = None) -> Image.Image:
        """The picture of an item that has one; with `side` its longest side has at most so many pixels.

        Raises:
            PictureError: it cannot be read.
        """
        return open_picture(self.path(item), side)


def warn_broken(reasons: Sequence[str], pictures: int) -> None:
    """Tell of pictures that cannot be read: a few by name, and how many there are."""
    for reason in reasons[:_NAMED]:
        log.warning("%s", reason)
    if reasons:
        log.warning("%s of %s pictures cannot be read", f"{len(reasons):,}", f"{pictures:,}")
