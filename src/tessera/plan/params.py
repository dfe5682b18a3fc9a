"""What a job is told: settings as texts, by which Snakemake sees whether a job has to run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tessera.settings.base import Settings

Files = dict[str, str | list[str]]
"""Named inputs of a job."""


class Told(str):
    """A text that a rule reads; where it is long, Snakemake records it, and tells of a change, by its hash.

    A job whose text changed in nothing but what `identity` leaves out is not run again.
    """

    identity: str

    def __new__(cls, text: str, identity: str | None = None) -> Told:
        """`identity` is what Snakemake records in place of the text."""
        made = super().__new__(cls, text)
        made.identity = text if identity is None else identity
        return made

    def beside(self, files: Iterable[str | Path]) -> Told:
        """The same text for a job that reads files which nothing here makes; their sizes are recorded with it.

        Snakemake goes by times alone: a file replaced by one with an older time (unpacked, moved, copied with its time)
        would not be noticed.
        """
        sizes = [size for file in files if (size := _size(file)) is not None]
        return Told(str(self), f"{self.identity} {sizes}") if sizes else self

    def __repr__(self) -> str:
        recorded = self.identity
        return repr(recorded) if len(recorded) < 500 else f"sha256:{hashlib.sha256(recorded.encode()).hexdigest()[:16]}"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def _size(file: str | Path) -> int | None:
    """Bytes of a file; None where there is none."""
    path = Path(file)
    return path.stat().st_size if path.is_file() else None


def every(files: Files) -> list[str]:
    """The files of named inputs."""
    return [file for named in files.values() for file in ([named] if isinstance(named, str) else named)]


def canonical(value: Any) -> Told:
    """Params as sorted JSON: Snakemake compares dicts in the order of their keys."""
    return Told(*(json.dumps(_picked(value, whole), sort_keys=True) for whole in (True, False)))


class Part(NamedTuple):
    """Settings in the params of a job."""

    whole: dict[str, Any]
    identity: dict[str, Any]
    """Without what no result depends on."""


def part_of(settings: Settings, without: Iterable[str] = ()) -> Part:
    """Settings as a job is told of them.

    Args:
        settings: a section of the config.
        without: keys that the job does not read.
    """
    left_out = set(without)
    both = (settings.model_dump(mode="json"), settings.identity())
    return Part(*({key: value for key, value in shown.items() if key not in left_out} for shown in both))


def _picked(value: Any, whole: bool) -> Any:
    if isinstance(value, Part):
        return value.whole if whole else value.identity
    return {key: _picked(part, whole) for key, part in value.items()} if isinstance(value, dict) else value
