"""Embedding a catalogue: the rows of an item table from a language model, trained or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.artifacts.interests import write_interests
from tessera.artifacts.logs import log
from tessera.artifacts.places import FINISH
from tessera.artifacts.sequences import write_item_sequences
from tessera.artifacts.tables import ArtifactError, check_rows_differ, write_item_table
from tessera.embedding.finish import Components, finish, fit, write_components
from tessera.embedding.recipe import Rows
from tessera.embedding.task import Places, Task
from tessera.embedding.text import LOOK, LOOK_AT_PICTURES
from tessera.settings.recipes.base import Finish
from tessera.training.shards import forget_shards


def embed(task: Task, inputs: Places, output: Path, state: Path, code: str) -> None:
    """Write the item table of a task, and beside it (`.finish.safetensors`) how its rows were finished.

    Args:
        state: folder of states; what a killed run goes on from is in one of its own.
        code: hash of the code that makes the table.
    Raises:
        ArtifactError: no item has a text, a vector is not finite, or all are the same.
    """
    folder = task.state(inputs, state, code)
    recipe = task.recipe(inputs, folder)
    made = recipe.rows()
    check(output, made, LOOK_AT_PICTURES if task.table.reads_pictures("") else LOOK)
    components = fit(made.vectors, recipe.settings)
    rows = finished(made, recipe.settings, components)
    distinct, width = len(np.unique(rows.items)), made.vectors.shape[1]
    whose = "items" if rows.interests is None else "users"
    log.info(
        "%d %s have %d vectors of width %d (from %d)", distinct, whose, len(rows.items), rows.vectors.shape[1], width
    )
    write_components(output.with_suffix(f".{FINISH}"), components)
    digests = {str(number): digest for number, digest in enumerate(inputs.digests())}
    write(output, rows, task.identity(), digests)
    forget_shards(folder)


def check(output: Path, rows: Rows, advice: str = LOOK) -> None:
    """Refuse rows of which no table can be made.

    Args:
        output: where it would be written.
        rows: before they are finished.
        advice: what to do where all items have the same.
    Raises:
        ArtifactError: a vector is not finite, or all are the same.
    """
    bad = ~np.isfinite(rows.vectors).all(1)
    if bad.any():
        raise ArtifactError(
            f"{output}: the model gives NaN or infinity for {'item' if rows.interests is None else 'user'} "
            f"{rows.items[bad][0]}; nothing was written"
        )
    if len(np.unique(rows.items)) > 1:
        if rows.interests is None:
            why = advice
        else:
            why = "the interests say the same of every user; look at what is told of the items and at the model"
        check_rows_differ(output, rows.vectors, f"nothing was written: {why}")


def finished(rows: Rows, settings: Finish, components: Components | None) -> Rows:
    """Rows as the table has them; `components` is what `fit` found."""
    items = rows.items if settings.shuffle is None else shuffled(rows.items, settings.shuffle)
    return rows._replace(items=items, vectors=finish(rows.vectors, settings, components))


def write(output: Path, rows: Rows, settings: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Write a table of one row an item, of several, or of several a user."""
    items, vectors, names, interests, counts = rows
    if interests is not None:
        order = np.argsort(items, kind="stable")
        ordered = [interests[row] for row in order]
        write_interests(output, items[order], ordered, vectors[order], settings, digests, counts=dict(counts or {}))
    elif names is None:
        write_item_table(output, items, vectors, settings, digests)
    else:
        order = np.argsort(items, kind="stable")
        write_item_sequences(output, items[order], [names[row] for row in order], vectors[order], settings, digests)


def shuffled(items: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Items (n,) renamed by a random permutation of those that occur: every one has the rows of another, or its own."""
    present = np.unique(items)
    return np.random.default_rng(seed).permutation(present)[np.searchsorted(present, items)]
