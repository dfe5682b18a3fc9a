"""Items that came after training: what is told of them, and where the tables of a run put them."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tessera.artifacts.interests import KIND
from tessera.artifacts.logs import log
from tessera.artifacts.places import FINISH, place
from tessera.artifacts.tables import ArtifactError, describe, write_table
from tessera.data.files import DataFileError, find
from tessera.data.identifiers import id_series, id_text, positions_in
from tessera.data.log import ItemsLog
from tessera.data.sources.columns import read_items_file
from tessera.data.text import as_text
from tessera.embedding.finish import finish, read_components
from tessera.embedding.task import Places, Task
from tessera.embedding.text import tells_anything
from tessera.evaluation.judge import Scorer
from tessera.serving.attribute_order import in_order_of
from tessera.serving.catalogue import Catalogue, Mask
from tessera.serving.folder import RunFiles
from tessera.settings.kinds import load
from tessera.settings.language import BuiltModel, ByModel
from tessera.settings.recipes.base import NO_ROW, Finish, ItemTable, RecipeSettings
from tessera.settings.references import named
from tessera.settings.sources.base import ItemsFile

MOST_REJECTED = 0.05
"""Share of the rows of a file of items that may be unreadable."""
Rows = tuple[Tensor, Tensor]
"""Vectors (new, width) of a table, and which of the new items have one (new,)."""


@runtime_checkable
class Widening(Protocol):
    """A scorer that may take in items which training did not know."""

    def add_items(self, tables: Mapping[str, Rows]) -> None:
        """Score them too, behind the others."""


def read_products(products: pd.DataFrame) -> pa.Table:
    """Products as the items file of a dataset, numbered from 1.

    Args:
        products: columns `item` (raw id), `title` where there is one; every other column is an attribute.
    Raises:
        ValueError: there is no column `item`, or an id is missing or stands twice.
    """
    if "item" not in products.columns:
        raise ValueError(f"new items: expected a column 'item' with their ids (got {', '.join(map(str, products))})")
    ids = _ids(products["item"])
    if len(set(ids)) < len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise ValueError(f"new items: {twice!r} stands {count} times, expected once")
    names = [name for name in products.columns if name not in ("item", "title")]
    columns = {name: _texts(products[name]) for name in names}
    titles = _texts(products["title"]) if "title" in products.columns else [""] * len(ids)
    attributes = [[(str(name), columns[name][row]) for name in names if columns[name][row]] for row in range(len(ids))]
    return pa.table(
        {
            "item": pa.array(range(1, len(ids) + 1), pa.int32()),
            "raw_id": pa.array(ids, pa.string()),
            "title": pa.array([title or None for title in titles], pa.string()),
            "attributes": pa.array(attributes, pa.map_(pa.string(), pa.string())),
            "image": pa.nulls(len(ids), pa.string()),
        }
    )


def _ids(column: pd.Series[Any]) -> list[str]:
    """The ids of a column, by the rule of whole columns."""
    # here, for only new items need it
    import polars as pl

    ids = [id_text(raw) for raw in column]
    if None in ids:
        row = ids.index(None)
        raise ValueError(f"new items: row {row} has no id (got {column.tolist()[row]!r}, expected a text or a number)")
    return id_series(pl.Series("id", ids, pl.String)).to_list()


def new_to(catalogue: Catalogue, items: pa.Table) -> tuple[pa.Table, Mask]:
    """The products that a catalogue does not know, numbered from 1, and which of all (products,) these are."""
    new = np.array(positions_in(items.column("raw_id").to_pylist(), catalogue.numbers), np.int64) < 0
    left = items.filter(pa.array(new, pa.bool_()))
    return left.set_column(0, "item", pa.array(range(1, left.num_rows + 1), pa.int32())), new


def read_file(settings: ItemsFile) -> pd.DataFrame:
    """The products of a file, as `read_products` takes them; of repeated ids the first.

    Raises:
        DataFileError: it holds no item, or lacks a column.
        RejectedError: too many of its rows cannot be read.
    """
    rejected = ItemsLog()
    rows: dict[str, dict[str, str | None]] = {}
    read = 0
    for item in read_items_file(settings, rejected):
        read += 1
        rows.setdefault(item.raw_id, {"item": item.raw_id, "title": item.title, **item.attributes})
    rejected.check_rejected(read, MOST_REJECTED)
    if not rows:
        raise DataFileError(f"{settings.path}: holds no item with an id in {settings.id!r} (recommend.new_items.id)")
    if rejected.reasons:
        reasons = rejected.told_reasons()
        log.warning("%s: %d rows cannot be read (%s)", settings.path, rejected.reasons.total(), reasons)
    return pd.DataFrame(list(rows.values()), columns=["item", "title", *settings.text])


def add_file(scorer: Scorer, catalogue: Catalogue, files: RunFiles, settings: ItemsFile) -> Catalogue:
    """Have a scorer score the items of a file that the catalogue does not know; gives the wider catalogue.

    Raises:
        ValueError: as `read_file` and `widen`.
    """
    products = read_products(read_file(settings))
    items, _ = new_to(catalogue, products)
    log.info("%s: %d of %d items came after training", settings.path, items.num_rows, products.num_rows)
    if not items.num_rows:
        return catalogue
    widen(scorer, files, items)
    return wider(catalogue, items)


def _texts(column: pd.Series[Any]) -> list[str]:
    return [_text(value) for value in column]


def _text(value: object) -> str:
    """What a cell says, as in files of items; what is missing is empty."""
    return "" if pd.api.types.is_scalar(value) and pd.isna(value) else as_text(value)


def wider(catalogue: Catalogue, items: pa.Table) -> Catalogue:
    """The catalogue with new items behind the old ones; nobody has met them."""
    more = [dict(pairs or ()) for pairs in items.column("attributes").to_pylist()]
    return Catalogue(
        catalogue.path,
        [*catalogue.raw_ids, *items.column("raw_id").to_pylist()],
        [*catalogue.titles, *(title or "" for title in items.column("title").to_pylist())],
        np.concatenate([catalogue.popularity, np.zeros(items.num_rows, np.int64)]),
        (*catalogue.new, *more),
    )


def widen(scorer: Scorer, files: RunFiles, items: pa.Table, vectors: Mapping[str, npt.ArrayLike] | None = None) -> None:
    """Have the scorer of a run score new items, too.

    Args:
        items: what `read_products` gave.
        vectors: see `rows_of`.
    Raises:
        ValueError: it cannot, or a table has nothing to place them by.
    """
    problem = f"{files.run.system}: a new item cannot be placed"
    if not (files.run.takes_new and isinstance(scorer, Widening)):
        raise ValueError(
            f"{problem}: what the system knows of an item comes from training on it; train again, or use a system "
            "whose items enter by a table"
        )
    try:
        scorer.add_items(rows_of(files, items, vectors))
    except ValueError as error:
        raise ValueError(f"{problem}: {error}") from None


def rows_of(files: RunFiles, items: pa.Table, vectors: Mapping[str, npt.ArrayLike] | None = None) -> dict[str, Rows]:
    """The rows of new items in every table that a run reads.

    Args:
        items: what `read_products` gave.
        vectors: rows by table, (new, width) as the table has them, NaN where there is none; a table that is not named
            is asked of what made it: a language model reads the texts, a file of vectors is looked up.
    Raises:
        ValueError: no such table, another number of rows or width, or what made the table cannot be asked.
    """
    given = dict(vectors or {})
    if unknown := sorted(set(given) - set(files.inputs.tables)):
        raise ValueError(f"vectors: the run reads no table {unknown[0]!r} (it reads: {', '.join(files.inputs.tables)})")
    by_table: dict[str, Rows] = {}
    # but for rows of users: no item is read there
    tables = {name: Path(path) for name, path in files.inputs.tables.items() if describe(path).get("kind") != KIND}
    recipes = {name: _recipe(name, path) for name, path in tables.items() if name not in given}
    if recipes and not given and not any(recipe.takes_new for recipe in recipes.values()):
        name, recipe = next(iter(recipes.items()))
        raise ValueError(f"table {name!r} is of recipe {recipe.recipe}, {NO_ROW}; give vectors={{{name!r}: rows}}")
    for name, path in tables.items():
        rows = numbers(name, given[name]) if name in given else _made(files, name, path, recipes[name], items)
        width = describe_width(path)
        if rows.shape != (items.num_rows, width):
            raise ValueError(f"table {name!r}: expected rows of shape {(items.num_rows, width)} (got {rows.shape})")
        present = np.asarray(np.isfinite(rows).all(1), bool)
        if lost := items.num_rows - int(np.count_nonzero(present)):
            log.warning("table %r says nothing of %d of %d new items: they are scored alike", name, lost, len(rows))
        by_table[name] = torch.from_numpy(np.where(present[:, None], rows, 0)), torch.from_numpy(present)
    return by_table


def numbers(name: str, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Given rows of a table as an array.

    Raises:
        ValueError: they are no numbers, or rows of unlike width.
    """
    try:
        return np.asarray(rows, np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"vectors of table {name!r}: expected numbers, as many a product as the table has") from None


def describe_width(path: str | Path) -> int:
    """Width of an item table's rows."""
    import pyarrow.parquet as pq

    return int(pq.read_schema(path).field("embedding").type.list_size)


def _recipe(name: str, path: Path) -> RecipeSettings:
    """The recipe that made a table."""
    settings = describe(path)["settings"]
    settings = settings.get("table", settings)
    if "recipe" not in settings:
        raise ValueError(f"table {name!r} does not say what made it; give vectors={{{name!r}: rows}}")
    recipe: RecipeSettings = TypeAdapter[Any](ItemTable).validate_python(settings)
    return recipe


def _made(files: RunFiles, name: str, path: Path, recipe: RecipeSettings, items: pa.Table) -> npt.NDArray[np.float32]:
    """The rows that what made a table gives new items; NaN where it has nothing to go by."""
    settings = describe(path)["settings"]
    rows = np.full((items.num_rows, describe_width(path)), np.nan, np.float32)
    if not recipe.takes_new:
        return rows
    if "table" in settings:
        return _embedded(files, name, path, Task.model_validate(settings), items)
    module = load(type(recipe).IMPLEMENTATION.partition(":")[0])
    read = recipe.READS_OF_DATASET.get("source")
    source = getattr(recipe, "path", None) or str(files.root / str(read))
    asked = getattr(module, "vectors_of_new", module.vectors_of)
    chosen, vectors = asked(recipe, find(source), items.column("raw_id").to_pylist())
    if not len(chosen):
        return rows
    rows = np.full((items.num_rows, vectors.shape[1]), np.nan, np.float32)
    rows[chosen] = vectors
    return rows


def _embedded(files: RunFiles, name: str, path: Path, task: Task, items: pa.Table) -> npt.NDArray[np.float32]:
    """Texts read by the language model of a table, with what was trained in it, and finished as its rows were."""
    shape = task.table
    # what tells what is read: the recipe itself, or the one that it goes on from
    reader = shape if isinstance(shape, ByModel) else task.start
    assert isinstance(reader, ByModel)
    assert isinstance(shape, Finish)
    if named(reader, "captions"):
        log.warning("table %r was made with captions, too; of new items the texts alone are read", name)
    components = read_components(path.with_suffix(f".{FINISH}"))
    known = {key for pairs in items.column("attributes").to_pylist() for key, _ in pairs or ()} | {"title"}
    kept = {
        key: [name for name in names if name in known]
        for key in ("attributes", "first_sentence") if (names := getattr(task.prompt, key)) is not None
    }  # fmt: skip
    task = task.model_copy(update={"prompt": task.prompt.model_copy(update=kept)})
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Path(folder) / "items.parquet"
        write_table(catalogue, in_order_of(files.items, items), "items")
        if not tells_anything(task.prompt, catalogue):
            return np.full((items.num_rows, describe_width(path)), np.nan, np.float32)
        inputs = Places(
            catalogue=str(catalogue),
            captions={},
            model=str(files.root / place("model", reader.model)) if isinstance(task.model, BuiltModel) else None,
            embedder=str(files.root / place("embedder", name)) if task.table.TRAINS else None,
        )
        for needed in filter(None, (inputs.model, inputs.embedder)):
            if not Path(needed).exists():
                raise ArtifactError(
                    f"{needed}: is not there, and table {name!r} cannot read new items without it; "
                    f"load the run where it was trained, or give vectors={{{name!r}: rows}}"
                )
        made = task.recipe(inputs, Path(folder) / "job/state").rows()
    finished = finish(made.vectors, shape, components)
    rows = np.full((items.num_rows, finished.shape[1]), np.nan, np.float32)
    rows[made.items - 1] = finished
    return rows
