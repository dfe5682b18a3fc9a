"""A map of the items of a table: two coordinates an item, beside what is known of it, as tools that draw maps read it.

Similar are rows with a large cosine: they are scaled to length one first. Popularity is counted in training histories
alone. embedding-atlas opens such a file: `embedding-atlas <table>.parquet --x x --y y --text title`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tessera.artifacts.codes import ABSENT, SemanticIds, read_codes
from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import describe, read_item_table, read_table, write_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.purity import attribute_values, categories

Method = Literal["pca", "tsne"]
MOST_TSNE = 5_000
"""Of larger tables t-SNE would take minutes; they are laid out by PCA."""
BEFORE_TSNE = 50
"""Principal components that t-SNE starts from."""
PERPLEXITY = 30.0
LEAST_TSNE = 8
ATTRIBUTE = "attribute_"
CODE = "code_"
CODES = "codes_"
"""What names of columns begin with; the name of the attribute, or of the recipe of semantic IDs, follows."""
SEPARATOR = "/"
"""Between the codes of an item."""
_NAME = 80

Floats = NDArray[np.float32]


def used_method(method: Method, rows: int) -> Method:
    """How so many rows are laid out where `method` is wanted."""
    return method if LEAST_TSNE <= rows <= MOST_TSNE else "pca"


def layout(vectors: np.ndarray, method: Method) -> Floats:
    """(n, 2) coordinates of rows (n, dim), the same for the same rows; computed in the one thread of a stage.

    Args:
        method: `pca`, or `tsne` of the first 50 principal components (van der Maaten and Hinton, JMLR 2008), which
            begins with the first two; of more than `MOST_TSNE` rows, and of hardly any, always `pca`.
    """
    # a stage has settled the number of threads before these are imported
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize

    flat = np.zeros((len(vectors), 2), np.float32)
    if len(vectors) < 2:
        return flat
    # below some 1e-15 rows would stay as they are; a power of two changes no digit
    unit = normalize(np.ldexp(vectors.astype(np.float64), -np.frexp(np.abs(vectors).max())[1]))
    if np.ptp(unit, axis=0).max() < 1e-9:  # all at one point
        return flat
    used = used_method(method, len(unit))
    width = min(*unit.shape, BEFORE_TSNE if used == "tsne" else 2)
    points = PCA(width, random_state=0).fit_transform(unit)
    if used == "tsne" and width > 1:
        perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
        embedding = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1)
        points = embedding.fit_transform(points.astype(np.float32))
    flat[:, : min(2, points.shape[1])] = points[:, :2]
    return flat


def make_atlas(table: Path, data: Path, output: Path, method: Method, codes: Sequence[Path] = ()) -> None:
    """Write the map of an item table, a row an item that has a vector, in the order of item ids.

    Columns: `id` (raw), `item`, `title`, `x`, `y`, `attributes` as one text, `popularity` (training interactions),
    `picture` (below the `image_root` of items.parquet); for every attribute with few values a column of its own; for
    every recipe of semantic IDs its first code and all of them. The metadata tell which `method` was used.

    Args:
        data: the folder of the dataset.
        codes: semantic IDs that are made of this table, each `<recipe>/codes.parquet`.
    Raises:
        ArtifactError: a file is not what it should be, or of another catalogue.
    """
    dataset = load_dataset(data)
    vectors, present = read_item_table(table, dataset.n_items)
    items = np.flatnonzero(present)
    catalogue = read_table(data / "items.parquet", "items").sort_by("item")
    known = catalogue.take(pa.array(items - 1))
    points = layout(vectors[items], method)
    columns: dict[str, Any] = {
        "id": known.column("raw_id"),
        "item": known.column("item"),
        "title": known.column("title"),
        "x": pa.array(points[:, 0]),
        "y": pa.array(points[:, 1]),
        "attributes": pa.array([_text(pairs) for pairs in known.column("attributes").to_pylist()], pa.string()),
        "popularity": pa.array(dataset.train_counts[items], pa.int64()),
        "picture": known.column("image"),
    }
    values = attribute_values(catalogue)
    for name in sorted(categories(data / "items.parquet")):
        texts = [values[name].get(item) for item in items.tolist()]
        columns.setdefault(f"{ATTRIBUTE}{one_line(name, _NAME)}", pa.array(texts, pa.string()))
    for path in codes:
        for name, ids, part in _parts(path, table.stem, dataset.n_items):
            rows = ids.of(part)[items, : ids.parts[part].meaningful].tolist()
            there = [row[0] != ABSENT for row in rows]
            first = [str(row[0]) if has else None for row, has in zip(rows, there, strict=True)]
            every = [SEPARATOR.join(map(str, row)) if has else None for row, has in zip(rows, there, strict=True)]
            columns[f"{CODE}{name}"] = pa.array(first, pa.string())
            columns[f"{CODES}{name}"] = pa.array(every, pa.string())
    about = describe(data / "items.parquet").get("image_root")
    write_table(output, pa.table(columns), "atlas", {"method": used_method(method, len(items))}, image_root=about)


def _text(pairs: Sequence[tuple[str, str]] | None) -> str | None:
    """The attributes of an item as one text."""
    return "; ".join(f"{name}: {text}" for name, text in pairs or [] if text) or None


def _parts(path: Path, table: str, items: int) -> list[tuple[str, SemanticIds, int]]:
    """Name, semantic IDs and number of the parts that were made of a table, alone or with others."""
    ids = read_codes(path, items)
    return [(path.parent.name, ids, number) for number, part in enumerate(ids.parts) if table in part.name.split("+")]
