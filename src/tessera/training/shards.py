"""Work over many items that survives a kill: in shards, each a file of the state, which together make the result.

How the work is cut changes no result. Items are read in batches of like length, and what is read together shows in the
last digits; so batches are made inside of groups of items, which are the same however large a shard is, and a shard is
whole groups.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tessera.training.checkpoint import leave, tidy

GROUP = 8
"""Batches of a group."""

Made = TypeVar("Made")

_NAME = re.compile(r"shard-(\d{9})-(\d{1,9})\.\w+")


def groups(items: Sequence[int], batch: int) -> Iterator[Sequence[int]]:
    """Items a group at a time, inside of which batches of like length are made."""
    for start in range(0, len(items), GROUP * batch):
        yield items[start : start + GROUP * batch]


def share_of_groups(items: Sequence[int], batch: int, part: int, parts: int) -> Sequence[int]:
    """The items of one of several parts, from 0: whole groups, as many in each as can be."""
    whole = -(-len(items) // (GROUP * batch))
    first, end = (whole * number // parts * GROUP * batch for number in (part, part + 1))
    return items[first:end]


@dataclass(frozen=True)
class Shards(Generic[Made]):
    """Shards of one result.

    Args:
        state: folder of the shards, named by everything that the result depends on.
        save: writes what was made of some items to a file.
        load: reads it again, given the items; raises ValueError, TypeError or KeyError where the file is none of them.
        suffix: of the files.
        what: that the shards are of, for messages.
    """

    state: Path
    save: Callable[[Path, Made], None]
    load: Callable[[Path, Sequence[int]], Made]
    suffix: str
    what: str

    def work(
        self, items: Sequence[int], size: int, batch: int, make: Callable[[Sequence[int]], Made]
    ) -> Iterator[tuple[Sequence[int], Made]]:
        """What is made of all items, in their order; shards that a killed run left are read, whatever their size.

        Args:
            items: all items.
            size: items a shard, rounded up to whole groups: what a kill loses at most.
            batch: items that are read together.
            make: what makes a shard, group by group.
        Raises:
            ValueError: a shard is damaged.
        """
        tidy(self.state)
        size = -(-size // (GROUP * batch)) * GROUP * batch
        left = self._left()
        start = 0
        while start < len(items):
            path, count = left.get(start, (None, 0))
            if path is None:
                count = min([start + size, len(items), *(other for other in left if other > start)]) - start
                chosen = items[start : start + count]
                # read again at once: a run that goes on must not differ from one that never stopped
                path = self.state / f"shard-{start:09d}-{count}{self.suffix}"
                self.save(path, make(chosen))
            chosen = items[start : start + count]
            yield chosen, self._read(path, chosen, count)
            start += count

    def _left(self) -> dict[int, tuple[Path, int]]:
        """start -> (file, items) of the shards that are there."""
        saved: dict[int, tuple[Path, int]] = {}
        for path in sorted(self.state.glob(f"shard-*{self.suffix}")):
            if (named := _NAME.fullmatch(path.name)) is not None and int(named[2]):
                saved[int(named[1])] = path, int(named[2])
        return saved

    def _read(self, path: Path, items: Sequence[int], count: int) -> Made:
        try:
            if len(items) != count:
                raise ValueError
            return self.load(path, items)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: is no shard of {self.what}; remove it, and its items are read again") from None


def forget_shards(state: Path) -> None:
    """Remove the shards of a result that is written, and their folder unless something else is in it."""
    for path in state.glob("shard-*"):
        if _NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
    tidy(state)
    leave(state)
