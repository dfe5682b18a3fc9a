"""The files that a run reads besides the dataset, told as one value, and opened when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tessera.artifacts.codes import SemanticIds, read_codebooks, read_codes
from tessera.artifacts.files import file_digest
from tessera.artifacts.interests import UserInterests, read_interests
from tessera.artifacts.logs import log
from tessera.artifacts.models import read_tensors
from tessera.artifacts.run_folder import RunFolder
from tessera.artifacts.sequences import ItemSequences, read_item_sequences
from tessera.artifacts.tables import ArtifactError, read_item_table
from tessera.settings.base import Settings
from tessera.settings.missing import Missing
from tessera.settings.runs import Run

if TYPE_CHECKING:
    from torch import Tensor

    from tessera.recommenders.missing import Lost

Table = tuple["Tensor", "Tensor"]
"""Vectors (items + 1, width) and present (items + 1,)."""


class RunInputs(Settings):
    """Paths of a run's inputs; what a run does not read is empty."""

    tables: dict[str, str] = Field(default_factory=dict)
    """Item tables by name."""
    teacher: str | None = None
    """Weights of the ID run that the run is aligned with."""
    members: list[str] = Field(default_factory=list)
    """Weights of the runs that an ensemble is made of, each with its description beside it."""
    codes: str | None = None
    """Semantic IDs (Parquet); the quantiser's `model.safetensors` lies beside them."""
    model: str | None = None
    """Folder of a language model that was built."""
    source: list[str] = Field(default_factory=list)
    """Files that the system itself names: one, or the parts of one."""
    files: list[str] = Field(default_factory=list)
    """Files that other kinds of your own name."""
    start: str | None = None
    """Weights of the run that training goes on from; its other files lie where it was left."""
    missing: Missing | None = None
    """Pictures or texts that are lost."""
    judged: Missing | None = None
    """What is lost when the run is judged, in place of what `missing` says of that."""
    modalities: dict[str, list[str]] = Field(default_factory=dict)
    """What the tables are made from, by name."""

    def digests(self) -> list[str]:
        """Fingerprints of the files, for the identity of a run's state."""
        files = [path for _, path in sorted(self.tables.items())]
        files += [path for path in (self.teacher, *self.members, self.codes, *self.source, *self.files) if path]
        files += [str(Path(self.codes).with_name("model.safetensors"))] if self.codes else []
        files += [str(Path(self.model, "model.safetensors"))] if self.model else []
        files += [self.start, str(RunFolder(Path(self.start).parent).items)] if self.start else []
        return [file_digest(file) for file in files]

    def read_again(self) -> dict[str, str]:
        """What a trained run is read with again, by what it is: item tables, codes and codebooks, a built model."""
        files = {f"table {name}": path for name, path in sorted(self.tables.items())}
        if self.codes is not None:
            files |= {"codes": self.codes, "codebooks": str(Path(self.codes).with_name("model.safetensors"))}
        if self.model is not None:
            files["language model"] = str(Path(self.model, "model.safetensors"))
        return files

    def read_table(self, name: str, items: int) -> Table:
        """An item table of one row an item; one that says the same of all is told.

        Raises:
            ValueError: it was not given.
            ArtifactError: it is not one of this catalogue, or says nothing of any item.
        """
        import torch

        vectors, present = read_item_table(self._table(name), items)
        if not present.any():
            raise ArtifactError(
                f"{self._table(name)}: has no vector of any item of this dataset, so there is nothing to read; "
                "give the items texts or pictures, or leave out the systems that read them"
            )
        if constant(vectors, present):
            log.warning("the table %r says the same of every item: it can tell nothing apart", name)
        return torch.from_numpy(vectors), torch.from_numpy(present)

    def read_sequences(self, name: str, items: int) -> ItemSequences:
        """An item table of several rows an item; raises as `read_table`."""
        return read_item_sequences(self._table(name), items)

    def read_interests(self, name: str) -> UserInterests:
        """What typical users are interested in; raises as `read_table`."""
        return read_interests(self._table(name))

    def _table(self, name: str) -> str:
        if name not in self.tables:
            raise ValueError(f"the item table {name!r} is read, but no file was given")
        return self.tables[name]

    def under(self, run: Run) -> RunInputs:
        """The same files, read under the losses of a run."""
        return self.model_copy(update={"missing": run.missing, "modalities": self.modalities | run.modalities})

    def lost(self, name: str, items: int) -> Lost | None:
        """Which rows of a table are lost in an experiment with missing pictures or texts; None where none is."""
        if self.missing is None and self.judged is None:
            return None
        from tessera.recommenders.missing import judged_without, lost_rows

        made = self.modalities.get(name, ())
        own = lost_rows(self.missing, made, items) if self.missing is not None else None
        if self.judged is None:
            return own
        return judged_without(own, lost_rows(self.judged, made, items), items)

    def read_codes(self, name: str, items: int) -> tuple[SemanticIds, Mapping[tuple[int, int], Tensor]]:
        """Semantic IDs, and the codebooks of their quantiser by (part, level).

        Raises:
            ValueError: they were not given.
            ArtifactError: they are not those of this catalogue.
        """
        if self.codes is None:
            raise ValueError(f"the semantic IDs {name!r} are read, but no file was given")
        return read_codes(self.codes, items), read_codebooks(self.codes)

    def read_teacher(self, items: int, dim: int) -> Tensor | None:
        """The trained item vectors of the run to align with, (items + 1, dim); None where none is given.

        Raises:
            ArtifactError: the run has none, or those of another catalogue, or of another width.
        """
        if self.teacher is None:
            return None
        weight = read_tensors(self.teacher).get("items.weight")
        if weight is None:
            raise ArtifactError(
                f"{self.teacher}: has no trained item vectors to align with; expected a run of `items: ids`"
            )
        if len(weight) != items + 1:
            raise ArtifactError(f"{self.teacher}: has vectors of {len(weight) - 1} items, the dataset has {items}")
        if weight.shape[1] != dim:
            raise ArtifactError(
                f"{self.teacher}: its item vectors have width {weight.shape[1]}, but the aligned backbone has "
                f"dim {dim}; give both backbones the same dim"
            )
        return weight


def constant(vectors: np.ndarray, present: np.ndarray) -> bool:
    """Whether a table of several rows says the same of all of them."""
    rows = vectors[present]
    return len(rows) > 1 and bool((rows == rows[0]).all())


def run_inputs(run: Run, files: Mapping[str, Any]) -> RunInputs:
    """The inputs of a run from the named inputs of its rule: `tables`, `teacher`, `members`, `codes`,
    `language_model`, `source`, `start`."""
    tables = dict(zip(run.tables, map(str, files.get("tables", [])), strict=True))
    return RunInputs(
        tables=tables,
        teacher=files.get("teacher"),
        members=list(files.get("members", [])),
        codes=files.get("codes"),
        model=files.get("language_model"),
        source=list(files.get("source", [])),
        files=list(files.get("files", [])),
        start=files.get("start"),
    )
