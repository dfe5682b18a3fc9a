"""Parquet artifacts: written with their history in the schema metadata, read with checks.

Every file carries the Tessera version, its kind and the version of that kind, the settings that made it and the
fingerprints of its inputs. Reading a file of another kind is an error that names both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tessera import __version__
from tessera.artifacts.files import atomic
from tessera.artifacts.places import far

_KEY = b"tessera"

INTERACTIONS = pa.schema(
    [
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("timestamp", pa.int64()),
        ("position", pa.int32()),
        ("rating", pa.float32()),
        ("split", pa.string()),
    ]
)
ITEMS = pa.schema(
    [
        ("item", pa.int32()),
        ("raw_id", pa.string()),
        ("title", pa.string()),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("image", pa.string()),
    ]
)
PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
"""Attributes, cast to what other libraries read as well: none of them knows much to do with a map."""
USERS = pa.schema([("user", pa.int32()), ("raw_id", pa.string())])
REJECTED = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
EVALUATION = pa.schema(
    [
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("rank", pa.float64()),
        ("score", pa.float32()),
        ("candidates", pa.int32()),
        ("history_length", pa.int32()),
        ("popularity", pa.int32()),
        ("repeat", pa.bool_()),
        ("cold_rank", pa.float64()),
        ("cold_candidates", pa.int32()),
        ("recommended", pa.list_(pa.int32())),
    ]
)
CORRUPTION = pa.schema(
    [
        ("pattern", pa.string()),
        ("lose", pa.string()),
        ("rate", pa.float64()),
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("rank", pa.float64()),
        ("popularity", pa.int32()),
        ("repeat", pa.bool_()),
    ]
)
RECOMMENDATIONS = pa.schema(
    [
        ("user", pa.string()),
        ("rank", pa.int32()),
        ("item", pa.string()),
        ("title", pa.string()),
        ("score", pa.float32()),
        ("popular", pa.bool_()),
    ]
)
CLAIMS = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "name", "better", "than", "metric")),
        *((name, pa.float64()) for name in ("at_least", "better_mean", "than_mean", "difference", "low", "high")),
        *((name, pa.float64()) for name in ("p", "p_holm", "least_p", "detectable")),
        *((name, pa.int32()) for name in ("users", "better_seeds", "than_seeds")),
        ("verdict", pa.string()),
    ]
)
CAPTIONS = pa.schema([("item", pa.int32()), ("text", pa.string()), ("status", pa.string())])
CANDIDATES = pa.schema([("user", pa.int32()), ("items", pa.list_(pa.int32()))])
SHIFTS = pa.schema([("shift", pa.string()), ("user", pa.int32()), ("shifted", pa.bool_()), ("natural", pa.bool_())])
TEST_USERS = pa.schema([("user", pa.int32())])

RAW_INTERACTIONS = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.string()),
        ("timestamp", pa.int64()),
        ("rating", pa.float32()),
        ("split", pa.string()),
        ("row", pa.int64()),
    ]
)
RAW_ITEMS = pa.schema(
    [
        ("raw_id", pa.string()),
        ("title", pa.string()),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("image", pa.string()),
    ]
)

# the demo world: what its items really are, and what stood behind each step
LATENTS = pa.schema(
    [
        ("raw_id", pa.string()),
        ("all", pa.list_(pa.float32())),
        ("text", pa.list_(pa.float32())),
        ("image", pa.list_(pa.float32())),
    ]
)
TASTES_HELD = 4
TRUTH = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.string()),
        ("position", pa.int32()),
        ("timestamp", pa.int64()),
        ("tastes", pa.list_(pa.int32(), TASTES_HELD)),
        ("weights", pa.list_(pa.float64(), TASTES_HELD)),
    ]
)

# of a lifelong world: what the chance of a click was at each logged impression
CLICK_TRUTH = pa.schema(
    [("user", pa.string()), ("item", pa.string()), ("timestamp", pa.int64()), ("probability", pa.float64())]
)

# click-through rate: the history of a sample is the events of its user before `end` (ctr/samples.py)
CTR_SAMPLES = pa.schema(
    [
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("label", pa.int8()),
        ("end", pa.int64()),
        ("timestamp", pa.int64()),
        ("split", pa.string()),
    ]
)
CTR_CATALOGUE = pa.schema([("item", pa.int32()), ("category", pa.int32()), ("events", pa.int64()), ("met", pa.bool_())])
CTR_PREDICTIONS = pa.schema(
    [
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("label", pa.int8()),
        ("history_length", pa.int64()),
        ("probability", pa.float32()),
    ]
)

# times are int64 in the unit that the metadata field `time_unit` says (s, ms, us, ns); `dated`: whether they are dates
# kind -> (version, schema or None when the columns depend on the settings)
KINDS: dict[str, tuple[int, pa.Schema | None]] = {
    "interactions": (2, INTERACTIONS),
    "items": (1, ITEMS),
    "users": (1, USERS),
    "rejected": (1, REJECTED),
    "item_table": (1, None),
    "item_sequences": (1, None),
    "user_interests": (1, None),
    "evaluation": (3, EVALUATION),
    "corruption": (1, CORRUPTION),
    "candidates": (1, CANDIDATES),
    "shifts": (1, SHIFTS),
    "test_users": (1, TEST_USERS),
    "recommendations": (1, RECOMMENDATIONS),
    "captions": (1, CAPTIONS),
    "semantic_ids": (1, None),
    "atlas": (1, None),
    "raw_interactions": (2, RAW_INTERACTIONS),
    "raw_items": (1, RAW_ITEMS),
    "metrics": (1, None),
    "claims": (1, CLAIMS),
    "latents": (1, LATENTS),
    "truth": (2, TRUTH),
    "click_truth": (1, CLICK_TRUTH),
    "ctr_samples": (2, CTR_SAMPLES),
    "ctr_catalogue": (2, CTR_CATALOGUE),
    "ctr_predictions": (1, CTR_PREDICTIONS),
}


class ArtifactError(ValueError):
    """A file that is not what its reader needs."""


def metadata(
    kind: str, settings: Mapping[str, Any] | None = None, inputs: Mapping[str, str] | None = None, **more: Any
) -> dict[bytes, bytes]:
    """Schema metadata of an artifact; `inputs` maps a name to a fingerprint."""
    described = {
        "tessera": __version__,
        "kind": kind,
        "version": KINDS[kind][0],
        "settings": dict(settings or {}),
        "inputs": dict(inputs or {}),
        **more,
    }
    return {_KEY: json.dumps(described, sort_keys=True).encode()}


def write_table(
    path: str | Path,
    table: pa.Table,
    kind: str,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    **more: Any,
) -> None:
    """Write a Parquet artifact atomically, cast to the schema of its kind."""
    schema = KINDS[kind][1]
    if schema is not None:
        table = table.select(schema.names).cast(schema)
    table = table.replace_schema_metadata(metadata(kind, settings, inputs, **more))
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def image_root(items: str | Path) -> str | None:
    """The folder of the pictures that an items.parquet names, where it is now; None where it names none."""
    root = describe(items).get("image_root")
    return far(str(root), Path(items).parent.parent) if root is not None else None


def describe(path: str | Path) -> dict[str, Any]:
    """The metadata of a Parquet artifact; empty for a Parquet file of another origin."""
    header = (pq.read_schema(path).metadata or {}).get(_KEY)
    return dict(json.loads(header)) if header else {}


def read_table(path: str | Path, kind: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet artifact of the given kind.

    Raises:
        ArtifactError: the file is missing, is of another kind or version, or lacks a column.
    """
    if not Path(path).is_file():
        raise ArtifactError(f"{path}: no such file; expected a Parquet artifact of kind {kind!r}")
    try:
        description = describe(path)
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"{path}: not a Parquet file ({error})") from None
    if description.get("kind") != kind:
        raise ArtifactError(f"{path}: is of kind {description.get('kind')!r}, expected {kind!r}")
    if description.get("version") != KINDS[kind][0]:
        raise ArtifactError(
            f"{path}: version {description.get('version')} of {kind!r}, this Tessera reads {KINDS[kind][0]}"
        )
    schema = KINDS[kind][1]
    wanted = columns or (schema.names if schema is not None else None)
    missing = set(wanted or []) - set(pq.read_schema(path).names)
    if missing:
        raise ArtifactError(f"{path}: lacks the columns {sorted(missing)}")
    try:
        return pq.read_table(path, columns=wanted)
    except (OSError, pa.ArrowInvalid) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, not of what stands there
            raise
        raise ArtifactError(f"{path}: is damaged ({' '.join(str(error).split())})") from None


def check_ids(path: str | Path, table: pa.Table, column: str, largest: int) -> None:
    """Refuse ids outside 1..largest, naming the file, the column and the first offending row."""
    values = table.column(column)
    bad = pc.fill_null(pc.or_(pc.less(values, 1), pc.greater(values, largest)), True)
    row = pc.index(bad, True).as_py()
    if row >= 0:
        raise ArtifactError(f"{path}: row {row}, column {column!r}: {values[row].as_py()} is not an id in 1..{largest}")


_ALIKE = 1e-5
"""Rows that differ by less than this share of their root mean square differ by rounding alone."""


def check_rows_differ(source: str | Path, vectors: np.ndarray, why: str) -> None:
    """Refuse vectors (n, dim) that are the same in all rows, of which there are several.

    Args:
        source: what the vectors come from, or are written to.
        vectors: without NaN.
        why: what may have gone wrong.
    Raises:
        ArtifactError: they are the same.
    """
    if len(vectors) < 2:
        return
    size = np.sqrt(np.mean(np.square(vectors, dtype=np.float64)))
    if float(np.max(np.ptp(vectors, axis=0), initial=0)) <= _ALIKE * size:
        raise ArtifactError(
            f"{source}: all {len(vectors)} rows have the same vector, which tells none from another; {why}"
        )


def write_item_table(
    path: str | Path,
    items: np.ndarray,
    vectors: np.ndarray,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> None:
    """Write an item table: `items` (n,) dense ids, `vectors` (n, dim) float32. Items without a vector are left out.

    Raises:
        ArtifactError: there is not one row an id.
    """
    if vectors.ndim != 2 or len(items) != len(vectors):
        raise ArtifactError(f"{path}: vectors of shape {vectors.shape} for {len(items)} items; expected a row for each")
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    table = pa.table(
        {
            "item": pa.array(items, pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    write_table(path, table, "item_table", settings, inputs)


def check_item_table(path: str | Path, count: int) -> None:
    """Refuse what a recipe of one row an item wrote for a catalogue of so many items, or that it wrote nothing.

    Raises:
        ArtifactError: see `read_item_table`; or no item has a row, or all have the same.
    """
    if not Path(path).is_file():
        raise ArtifactError(f"{path}: the recipe ended without having written it (`write_item_table`)")
    vectors, present = read_item_table(path, count)
    if not present.any():
        raise ArtifactError(f"{path}: no item has a row")
    check_rows_differ(path, vectors[present], "look at the recipe")


def read_item_table(path: str | Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Read an item table keyed by id, in any row order.

    Returns:
        vectors (count + 1, dim) float32, zero where absent, row 0 for padding; present (count + 1,) bool.
    Raises:
        ArtifactError: wrong kind, ids outside 1..count or twice, NaN or infinite values.
    """
    table = read_table(path, "item_table")
    check_ids(path, table, "item", count)
    items = table.column("item").to_numpy()
    values, repeats = np.unique(items, return_counts=True)
    if (repeats > 1).any():
        raise ArtifactError(f"{path}: item {values[repeats > 1][0]} stands {repeats.max()} times, expected once")
    embedding = table.column("embedding").combine_chunks()
    dim = embedding.type.list_size
    rows = embedding.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    bad = ~np.isfinite(rows).all(1)
    if bad.any():
        raise ArtifactError(f"{path}: the vector of item {items[bad][0]} holds NaN or infinity")
    vectors = np.zeros((count + 1, dim), np.float32)
    present = np.zeros(count + 1, bool)
    vectors[items] = rows
    present[items] = True
    return vectors, present
