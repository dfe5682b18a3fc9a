"""Item pictures small enough to live inside the page, as data URIs."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

from tessera.artifacts.logs import log
from tessera.data.pictures import PictureError, open_picture

LARGEST = 96
"""Longest side in pixels, unless another is asked for."""
NAMED = 5
"""So many broken pictures are named in the log; the others are counted."""


class Pictures:
    """Thumbnails of one dataset's items, made once each.

    Args:
        root: the `image_root` of items.parquet; a relative one is looked for below the working directory, then below
            `$TESSERA_DATA`.
        largest: longest side in pixels.
    """

    def __init__(self, root: str | None, largest: int = LARGEST) -> None:
        self.root = self._find(root)
        self.largest = largest
        self.broken: dict[str, str] = {}
        """Picture -> why it cannot be shown."""
        self._made: dict[str, str | None] = {}

    @staticmethod
    def _find(root: str | None) -> Path | None:
        if not root:
            return None
        candidates = [Path(root), Path(os.environ.get("TESSERA_DATA", "."), root)]
        folder = next((place for place in candidates if place.is_dir()), None)
        if folder is None:
            log.info("%s: no such folder; the report shows items without pictures", root)
        return folder

    def sized(self, largest: int) -> Pictures:
        """The same pictures in another size; broken ones are counted together."""
        other = Pictures(None, largest)
        other.root, other.broken = self.root, self.broken
        return other

    def uri(self, image: str | None) -> str | None:
        """A `data:` URI; None where there is no picture, or none that can be read."""
        if image is None or self.root is None or image in self.broken:
            return None
        if image not in self._made:
            self._made[image] = self._thumbnail(self.root / image, image)
        return self._made[image]

    def tell_broken(self) -> list[str]:
        """Say in the log which pictures cannot be shown; all of them as `name: reason`."""
        lines = [f"{image}: {reason}" for image, reason in self.broken.items()]
        for line in lines[:NAMED]:
            log.warning("%s/%s; the report shows its item without it", self.root, line)
        if len(lines) > NAMED:
            log.warning("and %s more pictures that cannot be read", f"{len(lines) - NAMED:,}")
        return lines

    def _thumbnail(self, path: Path, image: str) -> str | None:
        try:
            flat = open_picture(path, self.largest)
        except PictureError as error:
            self.broken[image] = error.reason
            return None
        encoded = {}
        # an optimised PNG is 7 % smaller and takes five times as long; a page has up to a thousand
        for kind, options in (("PNG", {}), ("JPEG", {"quality": 82, "optimize": True})):
            out = io.BytesIO()
            flat.save(out, kind, **options)
            encoded[kind.lower()] = out.getvalue()
        kind = min(encoded, key=lambda name: len(encoded[name]))
        return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"
