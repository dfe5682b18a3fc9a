"""Item tables from vectors that exist already: files of other programs, and the demo world's own attributes.

Two recipes: `vectors` (`.npy` whose row number is the raw id, as MMRec keeps them, or Parquet with a key and
`embedding`) and `latent` (one column of the demo world's latents.parquet). Both give one float32 row an item, keyed by
dense id; items without a vector are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.artifacts.files import file_digest
from tessera.artifacts.logs import log
from tessera.artifacts.tables import LATENTS, ArtifactError, check_ids, check_rows_differ, read_table, write_item_table
from tessera.settings.base import did_you_mean
from tessera.settings.tables import ItemTable, LatentTable


def import_table(recipe: ItemTable, source: str | Path, items: str | Path, output: str | Path) -> None:
    """Write an item table for the items of a dataset.

    Args:
        recipe: `vectors` or `latent`.
        source: the file of vectors, or latents.parquet of the demo world.
        items: items.parquet of the dataset.
        output: the item table.
    Raises:
        ArtifactError: `source` cannot be read as the recipe says, or knows none of the items.
    """
    source = Path(source)
    catalogue = read_table(items, "items", ["item", "raw_id"]).sort_by("item")
    raw_ids: list[str] = catalogue.column("raw_id").to_pylist()
    if isinstance(recipe, LatentTable):
        chosen, vectors = _by_raw_id(source, read_table(source, "latents", LATENTS.names), recipe.view, raw_ids)
    elif not source.is_file():
        near = did_you_mean(source.name, (p.name for p in source.parent.glob("*"))) if source.parent.is_dir() else ""
        raise ArtifactError(f"{source}: no such file of item vectors{near}")
    elif source.suffix == ".npy":
        chosen, vectors = _from_npy(source, raw_ids)
    elif source.suffix == ".parquet":
        chosen, vectors = _from_parquet(source, raw_ids)
    else:
        raise ArtifactError(f"{source}: item vectors are .npy or .parquet, not {source.suffix or 'without a suffix'!r}")
    _check_finite(source, chosen, vectors, raw_ids)
    check_rows_differ(source, vectors, "expected a vector of its own for every item")
    log.info("%s: %d of %d items have a vector of width %d", source, len(chosen), len(raw_ids), vectors.shape[1])
    settings = recipe.model_dump(mode="json")
    write_item_table(output, chosen.astype(np.int32) + 1, vectors, settings, {"source": file_digest(source)})


def _from_npy(path: Path, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a two-dimensional array, numbered by raw id."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ArtifactError(f"{path}: not an array of numbers ({error})") from None
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ArtifactError(f"{path}: array {array.shape} of {array.dtype}, expected numbers (items, dim)")
    rows = np.empty(len(raw_ids), np.int64)
    for index, raw_id in enumerate(raw_ids):
        if not (raw_id.isascii() and raw_id.isdigit() and int(raw_id) < len(array)):
            raise ArtifactError(
                f"{path}: item {raw_id!r} is not a row number in 0..{len(array) - 1}; "
                "vectors keyed by other raw ids come as Parquet (raw_id, embedding)"
            )
        rows[index] = int(raw_id)
    return np.arange(len(raw_ids)), array[rows].astype(np.float32)


def _from_parquet(path: Path, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"{path}: not a Parquet file ({error})") from None
    if "raw_id" in table.column_names:
        return _by_raw_id(path, table, "embedding", raw_ids)
    if "item" not in table.column_names:
        raise ArtifactError(
            f"{path}: has the columns {table.column_names}, expected 'raw_id' or 'item', and 'embedding'"
        )
    check_ids(path, table, "item", len(raw_ids))
    places = table.column("item").to_numpy().astype(np.int64) - 1
    _check_once(path, "item", places + 1)
    return _known_rows(path, table, "embedding", places)


def _by_raw_id(path: Path, table: pa.Table, column: str, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows joined to the items by raw id; rows of other items are passed over."""
    keys = table.column("raw_id").cast(pa.string()).to_numpy(zero_copy_only=False)
    _check_once(path, "raw_id", keys)
    place = {raw_id: index for index, raw_id in enumerate(raw_ids)}
    places = np.array([place.get(key, -1) for key in keys], np.int64)
    if not (places >= 0).any():
        raise ArtifactError(
            f"{path}: knows none of the {len(raw_ids)} items; its first raw_id is {keys[0] if len(keys) else None!r}, "
            f"the dataset's is {raw_ids[0]!r}"
        )
    return _known_rows(path, table, column, places)


def _known_rows(path: Path, table: pa.Table, column: str, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items (by place, ascending) and their vectors; `places` is -1 for rows of no interest."""
    if column not in table.column_names:
        raise ArtifactError(
            f"{path}: has no column {column!r}, only {table.column_names}{did_you_mean(column, table.column_names)}"
        )
    values = table.column(column).combine_chunks()
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or
            pa.types.is_fixed_size_list(values.type)):  # fmt: skip
        raise ArtifactError(f"{path}: column {column!r} holds {values.type}, expected lists of numbers")
    kept = np.flatnonzero((places >= 0) & values.is_valid().to_numpy(zero_copy_only=False))
    kept = kept[np.argsort(places[kept], kind="stable")]
    chosen = values.take(pa.array(kept))
    lengths = chosen.value_lengths().to_numpy(zero_copy_only=False) if len(chosen) else np.zeros(0, np.int64)
    if len(set(lengths.tolist())) != 1 or not lengths[0]:
        odd = kept[np.flatnonzero(lengths != lengths[0])[:1]].tolist() if len(lengths) else []
        raise ArtifactError(
            f"{path}: column {column!r} needs vectors of one width; found {sorted(set(lengths.tolist()))}"
            + (f", the first odd one in row {odd[0]}" if odd else "")
        )
    flat = chosen.flatten().to_numpy(zero_copy_only=False)
    return places[kept], flat.reshape(len(chosen), -1).astype(np.float32)


def _check_once(path: Path, column: str, keys: np.ndarray) -> None:
    values, counts = np.unique(keys, return_counts=True)
    if (counts > 1).any():
        raise ArtifactError(f"{path}: {column} {values[counts > 1][0]!r} stands {counts.max()} times, expected once")


def _check_finite(path: Path, chosen: np.ndarray, vectors: np.ndarray, raw_ids: list[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise ArtifactError(f"{path}: the vector of item {raw_ids[chosen[bad[0]]]!r} holds NaN or infinity")
