"""Embedding a catalogue: the rows of an item table from a language model, trained or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tessera.artifacts.logs import log
from tessera.artifacts.sequences import write_item_sequences
from tessera.artifacts.tables import ArtifactError, check_rows_differ, write_item_table
from tessera.embedding.finish import finish, fit, write_components
from tessera.embedding.task import Places, Task
from tessera.settings.recipes.base import Finish
from tessera.training.shards import forget_shards


def embed(task: Task, places: Places, output: Path, state: Path, code: str) -> None:
    """Write the item table of a task, and beside it (`.finish.safetensors`) how its rows were finished.

    Args:
        state: folder of states; what a killed run goes on from is in one of its own.
        code: hash of the code that makes the table.
    Raises:
        ArtifactError: no item has a text, a vector is not finite, or all are the same.
    """
    folder = task.state(places, state, code)
    items, vectors, names = task.recipe(places, folder).rows()
    bad = ~np.isfinite(vectors).all(1)
    if bad.any():
        raise ArtifactError(f"{output}: the model gives NaN or infinity for item {items[bad][0]}; nothing was written")
    shape = task.table
    assert isinstance(shape, Finish)
    if len(np.unique(items)) > 1:
        why = "look at what is told of the items (prompt.attributes, captions) and at the model's tokenizer"
        check_rows_differ(output, vectors, f"nothing was written: {why}")
    components = fit(vectors, shape)
    finished = finish(vectors, shape, components)
    log.info(
        "%d items have %d vectors of width %d (from %d)",
        len(np.unique(items)), len(items), finished.shape[1], vectors.shape[1],
    )  # fmt: skip
    write_components(output.with_suffix(".finish.safetensors"), components)
    digests = {str(number): digest for number, digest in enumerate(places.digests())}
    settings = task.identity()
    if shape.shuffle is not None:
        items = shuffled(items, shape.shuffle)
    if names is None:
        write_item_table(output, items, finished, settings, digests)
    else:
        order = np.argsort(items, kind="stable")
        write_item_sequences(output, items[order], [names[row] for row in order], finished[order], settings, digests)
    forget_shards(folder)


def shuffled(items: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Items (n,) renamed by a random permutation of those that occur: every one has the rows of another, or its own."""
    present = np.unique(items)
    return np.random.default_rng(seed).permutation(present)[np.searchsorted(present, items)]
