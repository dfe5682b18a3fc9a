"""Overlapping samples (a history and the item after it), as many recommenders publish them, merged into histories.

A history holds the items before its target, or the last of them; a user's samples stand in time order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tessera.data.identifiers import whole_numbers
from tessera.data.log import RawLog


class Sample(NamedTuple):
    """One row of a file."""

    file: Path
    line: int
    part: str
    history: list[str]
    target: str


def by_whole_columns(by_user: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The samples with the ids of histories and of targets each by the rule of whole columns: `5.0` continues a `5`."""
    samples = [sample for own in by_user.values() for sample in own]
    pointed = _pointed({sample.target for sample in samples})
    lists = _pointed({item for sample in samples for item in sample.history})
    if not (pointed or lists):
        return by_user
    return {
        user: [
            sample._replace(
                target=sample.target.removesuffix(".0") if pointed else sample.target,
                history=[item.removesuffix(".0") for item in sample.history] if lists else sample.history,
            )
            for sample in own
        ]
        for user, own in by_user.items()
    }


def _pointed(ids: set[str]) -> bool:
    return bool(whole_numbers(pl.Series(sorted(ids), dtype=pl.String)))


def longest_history(by_user: dict[str, list[Sample]]) -> int:
    """Length at which histories are cut."""
    return max((len(sample.history) for samples in by_user.values() for sample in samples), default=0)


def merged(user: str, samples: list[Sample], longest: int, log: RawLog) -> Iterator[tuple[int, str, str]]:
    """(line, item, part) of a user's history; samples that do not continue those before them are rejected."""
    known: list[str] = []
    for sample in samples:
        shared = _overlap(known, sample.history)
        # a history holds all items before its target, or the last `longest` of them
        if known and (not shared or len(sample.history) < min(len(known), longest)):
            shown = f"{sample.history} -> {sample.target}"
            log.reject(sample.file, sample.line, f"does not continue the samples before it (user {user})", shown)
            continue
        added = sample.history[shared:]
        # what a sample that could not be read would have told belongs to its part or this one, never to train
        yield from ((sample.line, item, sample.part if known else "train") for item in added)
        yield sample.line, sample.target, sample.part
        known += [*added, sample.target]


def _overlap(known: list[str], history: list[str]) -> int:
    """How many items at the end of `known` begin the history."""
    most = min(len(known), len(history))
    return next((count for count in range(most, 0, -1) if known[-count:] == history[:count]), 0)
