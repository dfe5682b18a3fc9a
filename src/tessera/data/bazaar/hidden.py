"""The true attributes of the demo world's items, those included that only a description or a picture tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tessera.artifacts.tables import ArtifactError, read_table
from tessera.data.bazaar.attributes import ATTRIBUTES, SIZES, VALUES


def true_attributes(latents: str | Path, raw_ids: list[str]) -> dict[str, dict[int, str]]:
    """attribute -> item id -> value, of items 1, 2, ... with these raw ids.

    Args:
        latents: latents.parquet of the raw data.
    Raises:
        ArtifactError: the file is none, or of attributes of another width.
    """
    table = read_table(latents, "latents", ["raw_id", "all"])
    rows = np.array(table.column("all").to_pylist(), np.float32).reshape(table.num_rows, -1)
    width = sum(SIZES.values())
    if rows.shape[1] != width:
        raise ArtifactError(f"{latents}: 'all' has {rows.shape[1]} numbers an item, expected {width}")
    item = {raw_id: number for number, raw_id in enumerate(raw_ids, 1)}
    known = [item.get(raw_id) for raw_id in table.column("raw_id").to_pylist()]
    attributes: dict[str, dict[int, str]] = {}
    start = 0
    for name in ATTRIBUTES:
        chosen = rows[:, start : start + SIZES[name]].argmax(1)
        values = zip(known, chosen.tolist(), strict=True)
        attributes[name] = {number: VALUES[name][value] for number, value in values if number is not None}
        start += SIZES[name]
    return attributes
