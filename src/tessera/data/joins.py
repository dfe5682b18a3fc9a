"""Two sets of ids that should meet: how many do, who does not, and what would make them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from heapq import nsmallest
from itertools import islice

from tessera.artifacts.logs import log

EXAMPLES = 3
KEPT = 10_000
"""So many ids that met nothing are remembered, to find out what keeps them apart."""
FEW = 0.5
"""Below this share of the known ids a join is told as a warning."""

_WAYS: dict[str, Callable[[str], str]] = {
    "without the zeros before them": lambda raw: raw.lstrip("0") or "0",
    "without '.0' behind them": lambda raw: re.sub(r"\.0+\Z", "", raw),
    "in one case": str.casefold,
    "without blanks around them": str.strip,
    "in one Unicode form": lambda raw: unicodedata.normalize("NFKC", raw),
    "without what stands before their last digits": lambda raw: (re.findall(r"\d+", raw[-40:]) or [raw])[-1],
}


def quoted(ids: Iterable[str]) -> str:
    """The first three ids in their natural order, as a person reads them."""
    shown = nsmallest(EXAMPLES + 1, ids, key=lambda raw: (len(raw), raw))
    return ", ".join(repr(raw[:80]) for raw in shown[:EXAMPLES]) + (", ..." if len(shown) > EXAMPLES else "")


class Join:
    """Counts which known ids a file names.

    Args:
        known: the ids that wait for something of the file.
    """

    def __init__(self, known: Collection[str]) -> None:
        self.known = known
        self.met: set[str] = set()
        self.rows = 0
        self.strangers: dict[str, None] = {}
        """Some of the file's ids that are not known, in the order of the file."""

    def meet(self, raw_id: str) -> bool:
        """Whether an id of the file is known."""
        self.rows += 1
        if raw_id in self.known:
            self.met.add(raw_id)
            return True
        if len(self.strangers) < KEPT:
            self.strangers[raw_id] = None
        return False

    @property
    def share(self) -> float:
        """Known ids that the file names, over all known ones."""
        return len(self.met) / max(len(self.known), 1)

    def tell(self, source: object, wanted: str, error: type[ValueError], hint: str = "") -> None:
        """Say how many met: a line, below half a warning, and none is an error.

        Args:
            source: the file.
            wanted: what waits, e.g. 'items of the log'.
            error: what is raised.
            hint: what may help where none met.
        Raises:
            ValueError: of the kind `error`: the file names ids, and none of them is known.
        """
        if not self.rows or not self.known:
            return
        lost = (raw for raw in self.known if raw not in self.met)
        message = f"{source}: meets {len(self.met):,} of {len(self.known):,} {wanted} ({self.share:.1%})"
        sides = [f"not met: {quoted(lost)}"] if len(self.met) < len(self.known) else []
        sides += [f"in the file alone: {quoted(self.strangers)}"] if self.strangers else []
        message += "".join(f"; {side}" for side in sides) + self._would_meet()
        if not self.met:
            raise error(message + hint)
        if self.share < FEW:
            log.warning("%s", message)
        else:
            log.info("%s", message)

    def _would_meet(self) -> str:
        """The way of writing ids under which most more would meet."""
        if not self.strangers or len(self.met) == len(self.known):
            return ""
        best, count = "", 0
        lost = [raw for raw in islice(self.known, 100 * KEPT) if raw not in self.met]
        for way, form in _WAYS.items():
            formed = set(map(form, lost))
            matches = len({form(raw) for raw in self.strangers} & formed)
            if matches > count:
                best, count = way, matches
        return f"; {count:,} more would meet {best}" if count else ""
