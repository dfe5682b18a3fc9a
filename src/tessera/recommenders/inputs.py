"""The files that a run reads besides the dataset, told as one value: to train, to judge, and to another process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tessera.artifacts.files import file_digest
from tessera.settings.base import Settings
from tessera.settings.runs import Run


class RunInputs(Settings):
    """Paths of a run's inputs; what a run does not read is empty."""

    tables: dict[str, str] = Field(default_factory=dict)
    """Item tables by name."""
    teacher: str | None = None
    """Weights of the ID run that the run is aligned with."""
    codes: str | None = None
    """Semantic IDs (Parquet); the quantiser's `model.safetensors` lies beside them."""
    model: str | None = None
    """Folder of a language model that was built."""

    def digests(self) -> list[str]:
        """Fingerprints of the files, for the identity of a run's state."""
        files = [path for _, path in sorted(self.tables.items())]
        files += [path for path in (self.teacher, self.codes) if path]
        files += [str(Path(self.codes).with_name("model.safetensors"))] if self.codes else []
        files += [str(Path(self.model, "model.safetensors"))] if self.model else []
        return [file_digest(file) for file in files]


def run_inputs(run: Run, files: Mapping[str, Any]) -> RunInputs:
    """The inputs of a run from the named inputs of its rule: `tables`, `teacher`, `codes` and `model`, if any."""
    tables = dict(zip(run.tables, map(str, files.get("tables", [])), strict=True))
    return RunInputs(
        tables=tables, teacher=files.get("teacher"), codes=files.get("codes"), model=files.get("model_folder")
    )
