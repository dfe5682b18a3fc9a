"""What makes a config impossible although each field is right: names that point nowhere, parts that do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tessera.settings.base import did_you_mean
from tessera.settings.references import Reference, references, walk
from tessera.settings.unread import said_in_vain

if TYPE_CHECKING:
    from tessera.settings.config import Config

# Names become folders below results/<experiment>/; these are there already.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_NAMED = "a name is letters, digits, '-', '_' and '.', the first no '.'"
_OF_EXPERIMENTS = ("benchmarks", "experiment.json", "logs", "report", "tables")
_BESIDE = ("claims", "robustness")
"""What else is written of a dataset beside its table, `results/<experiment>/tables/<dataset>-<this>.parquet`."""
_RESERVED = {"datasets": _OF_EXPERIMENTS, "systems": ("oracle",), "ctr.models": ("oracle",)}


def find_problems(config: Config) -> list[str]:
    """Every problem of a config, each with its path."""
    problems = [*_names(config), *_experiment(config), *_twice(config)]
    problems += [text for reference in references(config) for text in _leads_nowhere(config, reference)]
    if problems:  # what settings say of one another needs names that lead somewhere
        return problems
    problems = [f"{path}: {text}" for path, text in said_in_vain(config)]
    for path, settings in walk(config):
        for key, text in settings.problems(config):
            problems.append(f"{'.'.join(filter(None, [path, key]))}: {text}")
    return problems


def _names(config: Config) -> Iterator[str]:
    sections: dict[str, Mapping[str, Any]] = {
        name: getattr(config, name)
        for name in ("datasets", "models", "captions", "tables", "semantic_ids", "systems", "backbones")
    }
    sections["ctr.models"] = config.ctr.models if config.ctr is not None else {}
    for section, names in sections.items():
        for name in names:
            if not _NAME.fullmatch(name):
                yield f"{section}.{name}: {_NAMED}"
            elif section == "datasets" and (other := _beside(name, names)):
                yield f"{section}.{name}: a table of {other!r} has this name; choose another"
            elif name in _RESERVED.get(section, ()):
                yield f"{section}.{name}: this name is taken by a folder of results; choose another"


def _beside(name: str, names: Mapping[str, Any]) -> str | None:
    """The dataset beside whose table one of this name would be written over."""
    others = (name.removesuffix(f"-{kind}") for kind in _BESIDE)
    return next((other for other in others if other != name and other in names), None)


def _experiment(config: Config) -> Iterator[str]:
    """The name of an experiment is a folder's, too."""
    name = config.experiment.name
    if name is not None and not _NAME.fullmatch(name):
        yield f"experiment.name: {name!r} names no folder below results/: {_NAMED}"


def _twice(config: Config) -> Iterator[str]:
    for key in ("datasets", "systems", "backbones", "seeds"):
        values = getattr(config.experiment, key)
        if len(set(values)) < len(values):
            yield f"experiment.{key}: names something twice: {values}"


def _leads_nowhere(config: Config, reference: Reference) -> Iterator[str]:
    """Why a name cannot stand where it stands; the nearest name is one that could."""
    section: Mapping[str, Any] = getattr(config, reference.ref.section)
    need = reference.ref.needs
    fitting = [name for name, settings in section.items() if need is None or need in settings.offers()]
    if reference.name in fitting:
        return
    hint = did_you_mean(reference.name, fitting)
    if need is not None and reference.name in section:
        yield f"{reference.path}: {reference.name!r} {need.refusal}{hint}"
    else:
        yield f"{reference.path}: unknown name {reference.name!r}{hint}"
