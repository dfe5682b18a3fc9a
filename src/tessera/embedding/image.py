"""Vectors of the items' pictures by a picture encoder as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tessera.artifacts.logs import log
from tessera.data.catalogue_pictures import CataloguePictures
from tessera.data.pictures import PictureError
from tessera.embedding.recipe import Items, Recipe, Rows, Vectors
from tessera.embedding.sharded import RowShard, name_broken, sharded_rows
from tessera.language.picture_encoder import PictureEncoder, Pixels, load_picture_encoder
from tessera.settings.recipes.image import ImageTable
from tessera.training.shards import groups


def embed_pictures(table: ImageTable, encoder: PictureEncoder, catalogue: Path, state: Path) -> tuple[Items, Vectors]:
    """One vector a picture. A run that was killed goes on after the last complete shard and gives the same rows.

    Args:
        catalogue: items.parquet; `image_root` in its metadata is the folder of pictures.
        state: folder of the shards, named by everything that the rows depend on.
    Returns:
        (n,) ids of the items whose picture can be read, ascending, and (n, width) their vectors.
    Raises:
        ValueError: no item has a picture that can be read, their folder is not there, or a shard is damaged.
    """
    pictures = CataloguePictures(catalogue)
    if problem := pictures.problem():
        raise ValueError(problem)
    items = [item for item in pictures.items if item in pictures]
    log.info("%s of %s items have a picture", f"{len(items):,}", f"{len(pictures.items):,}")
    seen, vectors = sharded_rows(
        items, table, table.batch, encoder.width, state, lambda some: _encode(table, encoder, pictures, some)
    )
    if not len(seen):
        raise ValueError(f"{catalogue}: no picture of its items can be read")
    return seen, vectors


def _encode(table: ImageTable, encoder: PictureEncoder, pictures: CataloguePictures, items: Sequence[int]) -> RowShard:
    """One shard. A picture at a time is open; of a batch there are the pixels that the encoder is shown."""
    encoded: list[int] = []
    vectors: list[Vectors] = [np.empty((0, encoder.width), np.float32)]
    broken: list[str] = []
    for group in groups(items, table.batch):
        seen: list[tuple[int, Pixels]] = []
        for item in group:
            try:
                seen.append((item, encoder.pixels(pictures.open(item))))
            except PictureError as error:
                broken.append(f"item {item}: {error}")
            if len(seen) == table.batch or (seen and item == group[-1]):
                encoded += [shown for shown, _ in seen]
                vectors.append(encoder.encode([pixels for _, pixels in seen]).numpy())
                seen = []
    name_broken(broken)
    return RowShard(np.array(encoded, np.int64), np.concatenate(vectors), len(broken))


class ImageRecipe(Recipe):
    """A picture encoder as it is."""

    @classmethod
    def open_model(cls, table: Any, model: Any, folder: Path | None) -> PictureEncoder:
        """See `Recipe.open_model`."""
        return load_picture_encoder(model, table.pooling)

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        given = self.given
        return Rows(*embed_pictures(self.settings, given.model, given.catalogue, given.state))
