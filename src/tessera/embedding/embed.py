"""Embedding a catalogue: the rows of an item table from a language model, trained or not."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np

from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.embedding.finish import finish
from tessera.embedding.task import RECIPES, Places, Task
from tessera.language.models import load_model
from tessera.settings.embedding import CRRLTable, TextTable


def embed(task: Task, places: Places, output: Path) -> None:
    """Write the item table of a task.

    Raises:
        ArtifactError: no item has a text, or a vector is not finite.
    """
    table = task.table
    model = load_model(task.model, places.model_folder)
    module = import_module(RECIPES[table.recipe])
    catalogue, captions = Path(places.catalogue), places.caption_files
    if isinstance(table, TextTable):
        items, vectors = module.embed_text(table, task.prompt, model, catalogue, captions)
    elif isinstance(table, CRRLTable):
        items, vectors = module.embed_crrl(
            table, task.start, task.prompt, model, catalogue, captions, Path(str(places.embedder))
        )
    else:
        items, vectors = module.embed_contrastive(
            table, task.prompt, model, catalogue, captions, Path(str(places.embedder))
        )
    bad = ~np.isfinite(vectors).all(1)
    if bad.any():
        raise ArtifactError(f"{output}: the model gives NaN or infinity for item {items[bad][0]}; nothing was written")
    finished = finish(vectors, table)
    log.info("%d items have a vector of width %d (from %d)", len(items), finished.shape[1], vectors.shape[1])
    digests = {str(number): digest for number, digest in enumerate(places.digests())}
    write_item_table(output, items, finished, task.model_dump(mode="json"), digests)
