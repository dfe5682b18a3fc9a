"""An item table from the words of the catalogue."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from mine.words_settings import Words

from tessera.artifacts.files import file_digest
from tessera.artifacts.tables import write_item_table
from tessera.language.prompts import item_attributes
from tessera.settings.language import ItemPrompt


def make_table(recipe: Words, files: Mapping[str, str], output: str) -> None:
    """Counts of hashed words, each row scaled to length one."""
    told = item_attributes(files["catalogue"], ItemPrompt())
    vectors = np.zeros((len(told), recipe.width), np.float32)
    for row, pairs in enumerate(told.values()):
        for word in " ".join(value for _, value in pairs).lower().split():
            vectors[row, zlib.crc32(word.encode()) % recipe.width] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    digests = {"catalogue": file_digest(files["catalogue"])}
    write_item_table(output, np.array(list(told), np.int32), vectors, recipe.model_dump(mode="json"), digests)
