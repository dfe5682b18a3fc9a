"""Item pictures small enough to live inside the page, as data URIs."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

from PIL import Image

from tessera.artifacts.logs import log

LARGEST = 96
"""Longest side in pixels, unless another is asked for."""


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
        self._made: dict[str, str | None] = {}

    @staticmethod
    def _find(root: str | None) -> Path | None:
        if not root:
            return None
        places = [Path(root), Path(os.environ.get("TESSERA_DATA", "."), root)]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            log.info("%s: no such folder; the report shows items without pictures", root)
        return found

    def uri(self, image: str | None) -> str | None:
        """A `data:` URI; None where there is no picture, or none that can be read."""
        if image is None or self.root is None:
            return None
        if image not in self._made:
            self._made[image] = self._thumbnail(self.root / image)
        return self._made[image]

    def _thumbnail(self, path: Path) -> str | None:
        size = (self.largest, self.largest)
        try:
            with Image.open(path) as opened:
                opened.draft("RGB", size)  # a large JPEG is decoded at a fraction of its size
                picture = opened.convert("RGBA")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            log.info("%s: left out of the report (%s)", path, error)
            return None
        picture.thumbnail(size)
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A"))
        encoded = {}
        for kind, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": 82, "optimize": True})):
            out = io.BytesIO()
            flat.save(out, kind, **options)
            encoded[kind.lower()] = out.getvalue()
        kind = min(encoded, key=lambda name: len(encoded[name]))
        return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"
