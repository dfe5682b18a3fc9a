"""Where data files lie, and how a missing one is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tessera.settings.base import ConfigError, did_you_mean
from tessera.settings.config import Config, VectorsTable
from tessera.settings.evaluation import CandidatesFile

# The keys of a dataset that name a file or a folder, nested ones included.
FILE_KEYS = ("path", "metadata", "businesses", "items_file", "images", "targets")


def is_url(path: str) -> bool:
    """Whether the path is fetched rather than found."""
    return path.startswith(("http://", "https://", "ftp://", "file://"))


def find_data(path: str, key: str = "path") -> Path:
    """The file or folder that a config names: relative ones under $TESSERA_DATA, then under the working directory.

    Raises:
        ConfigError: there is none; the message names the places looked at and the nearest file.
    """
    roots = [Path(os.environ[name]) for name in ("TESSERA_DATA",) if os.environ.get(name)] + [Path()]
    tried = [Path(path)] if Path(path).is_absolute() else [root / path for root in roots]
    for candidate in tried:
        if candidate.exists():
            return candidate
    places = " and ".join(str(candidate) for candidate in tried)
    hint = next(filter(None, map(_nearest, tried)), "")
    unset = "" if os.environ.get("TESSERA_DATA") or Path(path).is_absolute() else " ($TESSERA_DATA is not set)"
    raise ConfigError(f"{key}: no such file or folder {path!r}: looked at {places}{unset}{hint}")


def _nearest(missing: Path) -> str:
    folder = missing.parent
    while not folder.is_dir() and folder != folder.parent:
        missing, folder = folder, folder.parent
    if not folder.is_dir():
        return ""
    hint = did_you_mean(missing.name, [entry.name for entry in folder.iterdir()]).split(" (known")[0]
    return f"{hint} (in {folder})" if hint else ""


def named_files(settings: Any, where: str) -> Iterator[tuple[str, str]]:
    """(path to the key, file) of every local file that a dataset's settings name, nested ones included."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from named_files(value, f"{where}.{name}")
        elif name in FILE_KEYS and isinstance(value, str) and not is_url(value):
            yield f"{where}.{name}", value


def dataset_files(config: Config, dataset: str) -> list[Path]:
    """The files that a dataset of the config reads.

    Raises:
        ConfigError: one of them is missing.
    """
    settings = config.datasets[dataset].model_dump()
    return [find_data(file, key) for key, file in named_files(settings, f"datasets.{dataset}")]


def check_files(config: Config, where: str = "config") -> None:
    """Refuse a config whose experiment needs files that are not there.

    Raises:
        ConfigError: one message with every missing file, a line each.
    """
    needed = [
        pair
        for dataset in config.experiment.datasets
        for pair in named_files(config.datasets[dataset].model_dump(), f"datasets.{dataset}")
    ]
    used = {getattr(getattr(config.systems[s], "items", None), "table", None) for s in config.experiment.systems}
    for name, table in config.tables.items():
        if name in used and isinstance(table, VectorsTable):
            needed.append((f"tables.{name}.path", table.path))
    if isinstance(config.evaluation.candidates, CandidatesFile):
        needed.append(("evaluation.candidates.path", config.evaluation.candidates.path))
    missing = []
    for key, file in needed:
        try:
            find_data(file, key)
        except ConfigError as error:
            missing.append(f"{where}: {error}")
    if missing:
        raise ConfigError("\n".join(missing))
