"""Item tables from the vectors that a trained ID run gave its items: what histories alone say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tessera.artifacts.files import file_digest
from tessera.artifacts.models import read_arrays
from tessera.artifacts.tables import ArtifactError, check_rows_differ, write_item_table
from tessera.data.dataset import load_dataset
from tessera.settings.recipes.collaborative import CollaborativeTable


def collaborative_table(recipe: CollaborativeTable, weights: Path, data: Path, output: Path) -> None:
    """Write the item vectors of a run; items without a training interaction were never learned and are left out.

    Args:
        recipe: which run.
        weights: `model.safetensors` of that run.
        data: folder of the prepared dataset.
        output: the item table.
    Raises:
        ArtifactError: the run has no item vectors, or those of another catalogue.
    """
    counts = load_dataset(data).train_counts
    vectors = read_arrays(weights).get("items.weight")
    if vectors is None:
        raise ArtifactError(f"{weights}: has no trained item vectors; expected a run of `items: ids`")
    if len(vectors) != len(counts):
        raise ArtifactError(f"{weights}: has vectors of {len(vectors) - 1} items, the dataset has {len(counts) - 1}")
    items = np.flatnonzero(counts > 0)
    check_rows_differ(weights, vectors[items], "the run learned nothing of them")
    settings = recipe.model_dump(mode="json")
    write_item_table(output, items.astype(np.int32), vectors[items], settings, {"run": file_digest(weights)})


def make_table(recipe: CollaborativeTable, files: Mapping[str, str], output: str) -> None:
    """Write the item table of a recipe from the files of its job: the run (`teacher`) and the dataset (`catalogue`)."""
    collaborative_table(recipe, Path(files["teacher"]), Path(files["catalogue"]).parent, Path(output))
