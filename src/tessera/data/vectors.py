"""Item tables from vectors that exist already: files of other programs, and the demo world's own attributes.

Two recipes: `vectors` (`.npy` whose row number is the raw id, as MMRec keeps them, or Parquet with a key and
`embedding`) and `latent` (one column of the demo world's latents.parquet). Both give one float32 row an item, keyed by
dense id; items without a vector are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tessera.artifacts.files import file_digest
from tessera.artifacts.logs import log
from tessera.artifacts.tables import LATENTS, ArtifactError, check_ids, check_rows_differ, read_table, write_item_table
from tessera.data.files import find
from tessera.data.identifiers import id_series, positions_in
from tessera.data.joins import Join, quoted
from tessera.data.sources.arrow_columns import decoded, is_list
from tessera.settings.base import did_you_mean
from tessera.settings.recipes.base import ItemTable
from tessera.settings.recipes.latent import LatentTable

if TYPE_CHECKING:
    from tessera.settings.recipes.vectors import VectorsTable


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
    chosen, vectors = vectors_of(recipe, source, raw_ids)
    check_rows_differ(source, vectors, "expected a vector of its own for every item")
    log.info("%s: %d of %d items have a vector of width %d", source, len(chosen), len(raw_ids), vectors.shape[1])
    settings = recipe.model_dump(mode="json")
    write_item_table(output, chosen.astype(np.int32) + 1, vectors, settings, {"source": file_digest(source)})


def vectors_of(recipe: ItemTable, source: Path, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What a file says of items.

    Args:
        recipe: `vectors` or `latent`.
        source: the file of vectors, or latents.parquet of the demo world.
        raw_ids: the items.
    Returns:
        (n,) which of them have a vector, from 0, and (n, width) their vectors.
    Raises:
        ArtifactError: `source` cannot be read as the recipe says, or knows none of the items.
    """
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
    return chosen, vectors


def vectors_of_new(recipe: ItemTable, source: Path, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """As `vectors_of`, of items that came after training: those that `source` does not know have no vector.

    Raises:
        ArtifactError: `source` cannot be read as the recipe says, or is keyed by the numbers of the items of training.
    """
    if source.suffix == ".npy":
        rows = len(_array(source))
        met = [place for place, raw_id in enumerate(raw_ids) if _is_row(raw_id, rows)]
    elif source.suffix == ".parquet":
        names = pq.read_schema(source).names
        if "raw_id" not in names and "item" in names:
            raise ArtifactError(
                f"{source}: is keyed by 'item', the numbers of the items of training, which says nothing of new ones; "
                "expected 'raw_id'"
            )
        table = pq.read_table(source, columns=[name for name in ("raw_id", "embedding") if name in names])
        if "embedding" in names:
            table = table.filter(pc.is_valid(table.column("embedding")))  # a row without one says nothing
        known = set(_raw_ids(table))
        met = [place for place, raw_id in enumerate(raw_ids) if raw_id in known]
    else:
        met = list(range(len(raw_ids)))
    if not met:
        return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    chosen, vectors = vectors_of(recipe, source, [raw_ids[place] for place in met])
    return np.asarray(met)[chosen], vectors


def make_table(recipe: Any, files: Mapping[str, str], output: str) -> None:
    """Write the item table of a recipe from the files of its job: `source` and `catalogue`."""
    import_table(recipe, files["source"], files["catalogue"], output)


def check(recipe: VectorsTable) -> None:
    """Refuse a file that holds no item vectors, by its first bytes.

    Raises:
        ArtifactError: so it is.
    """
    path = find(recipe.path)
    if path.suffix == ".npy":
        _array(path)
    elif path.suffix == ".parquet":
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{path}: not a Parquet file ({error})") from None
        _check_columns(path, schema.names)
        _check_numbers(path, "embedding", schema.field("embedding").type)
    else:
        raise ArtifactError(f"{path}: item vectors are .npy or .parquet, not {path.suffix or 'without a suffix'!r}")


def _check_columns(path: Path, names: list[str]) -> None:
    """Refuse a table without the columns of item vectors."""
    if not {"raw_id", "item"} & set(names):
        hint = did_you_mean("raw_id", names)
        raise ArtifactError(f"{path}: has the columns {names}, expected 'raw_id' or 'item', and 'embedding'{hint}")
    if "embedding" not in names:
        raise ArtifactError(f"{path}: has no column 'embedding', only {names}{did_you_mean('embedding', names)}")


def _check_numbers(path: Path, column: str, kind: pa.DataType) -> None:
    """Refuse a column that does not hold lists of numbers."""
    types = pa.types
    numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    if not is_list(kind) or not any(fits(kind.value_type) for fits in numbers):
        raise ArtifactError(f"{path}: column {column!r} holds {kind}, expected lists of numbers")


def _array(path: Path) -> np.ndarray:
    """A two-dimensional array of numbers, mapped into memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise ArtifactError(f"{path}: not an array of numbers, damaged or cut ({error})") from None
    if not isinstance(array, np.ndarray):
        names = ", ".join(array.files)
        array.close()
        raise ArtifactError(f"{path}: an .npz archive of {names}, expected one array (.npy, as `numpy.save` writes it)")
    if array.ndim != 2 or not array.shape[1] or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ArtifactError(f"{path}: array {array.shape} of {array.dtype}, expected numbers (items, dim)")
    return array


def _from_npy(path: Path, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a two-dimensional array, numbered by raw id."""
    array = _array(path)
    odd = [raw_id for raw_id in raw_ids if not _is_row(raw_id, len(array))]
    if odd:
        raise ArtifactError(
            f"{path}: item {odd[0]!r} is not a row number in 0..{len(array) - 1}; {len(odd):,} of {len(raw_ids):,} "
            f"items are none: {quoted(odd)}; vectors keyed by other raw ids come as Parquet (raw_id, embedding)"
        )
    rows = np.array([int(raw_id) for raw_id in raw_ids], np.int64)
    return np.arange(len(raw_ids)), _narrow(array[rows])


def _narrow(numbers: np.ndarray) -> np.ndarray:
    """Numbers as a table has them; those beyond are infinite, and told as such."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _is_row(raw_id: str, rows: int) -> bool:
    return raw_id.isascii() and raw_id.isdigit() and len(raw_id) < 19 and int(raw_id) < rows


def _from_parquet(path: Path, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path}: not a Parquet file, damaged or cut ({error})") from None
    _check_columns(path, table.column_names)
    if "raw_id" in table.column_names:
        return _by_raw_id(path, table, "embedding", raw_ids)
    check_ids(path, table, "item", len(raw_ids))
    positions = table.column("item").to_numpy().astype(np.int64) - 1
    _check_once(path, "item", positions + 1)
    join = Join(raw_ids)
    chosen, vectors = _known_rows(path, table, "embedding", positions)
    for place in chosen.tolist():
        join.meet(raw_ids[place])
    join.tell(path, "items", ArtifactError)
    return chosen, vectors


def _raw_ids(table: pa.Table) -> list[str | None]:
    return id_series(pl.Series(decoded(table.column("raw_id").combine_chunks()).column)).to_list()


def _by_raw_id(path: Path, table: pa.Table, column: str, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows joined to the items by raw id; rows of other items are passed over."""
    ids = _raw_ids(table)
    if None in ids:
        row, missing = ids.index(None), ids.count(None)
        log.warning("%s: %s rows have no raw_id and are left out; first: row %d", path, f"{missing:,}", row)
    _check_once(path, "raw_id", np.array([raw_id for raw_id in ids if raw_id is not None], object))
    positions = np.array(positions_in(ids, raw_ids), np.int64)
    join = Join(dict.fromkeys(raw_ids))
    for raw_id, place in zip(ids, positions.tolist(), strict=True):
        if raw_id is not None:
            join.meet(raw_ids[place] if place >= 0 else raw_id)
    if not join.met:
        join.tell(path, "items", ArtifactError)
    chosen, vectors = _known_rows(path, table, column, positions)
    join.met = {raw_ids[place] for place in chosen.tolist()}  # rows without a vector give none
    join.tell(path, "items", ArtifactError)
    return chosen, vectors


def _known_rows(path: Path, table: pa.Table, column: str, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items (by position, ascending) and their vectors; `positions` is -1 for rows of no interest."""
    if column not in table.column_names:
        raise ArtifactError(
            f"{path}: has no column {column!r}, only {table.column_names}{did_you_mean(column, table.column_names)}"
        )
    values = table.column(column).combine_chunks()
    _check_numbers(path, column, values.type)
    kept = np.flatnonzero((positions >= 0) & values.is_valid().to_numpy(zero_copy_only=False))
    kept = kept[np.argsort(positions[kept], kind="stable")]
    chosen = values.take(pa.array(kept))
    lengths = chosen.value_lengths().to_numpy(zero_copy_only=False) if len(chosen) else np.zeros(0, np.int64)
    if len(set(lengths.tolist())) != 1 or not lengths[0]:
        odd = kept[np.flatnonzero(lengths != lengths[0])[:1]].tolist() if len(lengths) else []
        raise ArtifactError(
            f"{path}: column {column!r} needs vectors of one width; found {sorted(set(lengths.tolist()))}"
            + (f", the first odd one in row {odd[0]}" if odd else "")
        )
    flat = chosen.flatten().to_numpy(zero_copy_only=False)
    return positions[kept], _narrow(flat.reshape(len(chosen), -1))


def _check_once(path: Path, column: str, keys: np.ndarray) -> None:
    values, counts = np.unique(keys, return_counts=True)
    if (counts > 1).any():
        first = values[counts > 1].tolist()[0]
        raise ArtifactError(f"{path}: {column} {first!r} stands {counts.max()} times, expected once")


def _check_finite(path: Path, chosen: np.ndarray, vectors: np.ndarray, raw_ids: list[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise ArtifactError(
            f"{path}: the vector of item {raw_ids[chosen[bad[0]]]!r} holds NaN, infinity or a number beyond float32"
        )
