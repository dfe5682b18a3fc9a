"""Where the names of points stand in a plot, so that all can be read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

_LETTER = 7.5
"""Pixels of a letter, at most; a wide one of an East Asian script takes two."""
_REACH = (0.5, 2.5, 5.0, math.inf)
"""Lines between a point and its name: names that can stay near their points come first."""


@dataclass(frozen=True)
class Plane:
    """The plane of a plot, logarithmic from left to right."""

    across: tuple[float, float]
    """Ends of the scale from left to right."""
    upwards: tuple[float, float]
    """Ends of the scale from bottom to top."""
    width: float
    """Pixels."""
    height: float
    """Pixels."""

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """From the left, from the top."""
        low, high = map(math.log, self.across)
        bottom, top = self.upwards
        return self.width * (math.log(x) - low) / (high - low), self.height * (top - y) / (top - bottom)

    def values(self, left: float, down: float) -> tuple[float, float]:
        """What stands at so many pixels."""
        low, high = map(math.log, self.across)
        bottom, top = self.upwards
        return math.exp(low + left * (high - low) / self.width), top - down * (top - bottom) / self.height


@dataclass(frozen=True)
class _Place:
    """Of a name: its ends, and its middle from the top, in pixels."""

    side: str
    left: float
    right: float
    down: float


def name_width(name: str) -> float:
    """Pixels that a name takes at most."""
    return _LETTER * sum(2 if east_asian_width(letter) in "FW" else 1 for letter in name)


def place_names(rows: Sequence[dict[str, Any]], plane: Plane, text: float) -> None:
    """Give every row (`run`, `x`, `y`) a place of its name: beside its point, up or down where others are.

    No name is over another or over a point, and none leaves the plot. A row gets `side` (where the name begins at its
    point: left or right; empty where no place is free, and the name is not drawn), `name_x` and `name_y` (the near end
    of the name) and `moved` (whether it needs a line to its point).

    Args:
        rows: the points.
        plane: where they are drawn.
        text: height of a name, pixels.
    """
    where = [plane.pixels(row["x"], row["y"]) for row in rows]
    taken = [_Place("", x - 6, x + 6, y) for x, y in where]
    waiting = sorted(zip(rows, where, strict=True), key=lambda pair: pair[1][1])
    for reach in _REACH:
        left_over = []
        for row, (x, y) in waiting:
            place = _nearest(row, x, y, taken, plane, text)
            if place is None or abs(place.down - y) > reach * text:
                left_over.append((row, (x, y)))
                continue
            taken.append(place)
            row["side"], row["moved"] = place.side, abs(place.down - y) > text / 2
            row["name_x"], row["name_y"] = plane.values(x + 7 if place.side == "left" else x - 7, place.down)
        waiting = left_over
    for row, _ in waiting:
        row.update(side="", moved=False, name_x=row["x"], name_y=row["y"])


def _nearest(
    row: Mapping[str, Any], x: float, y: float, taken: Sequence[_Place], plane: Plane, text: float
) -> _Place | None:
    """The free place of a name that is nearest to its point; None where there is none."""
    wide = name_width(row["run"])
    free = []
    for side, left, right in (("left", x + 8, x + 8 + wide), ("right", x - 8 - wide, x - 8)):
        if left < 0 or right > plane.width:
            continue
        others = [place.down for place in taken if left < place.right and place.left < right]
        least, most = text / 2, plane.height - text / 2
        tried = [min(max(y, least), most), *(other + way * text for other in others for way in (-1, 1))]
        free += [
            _Place(side, left, right, down)
            for down in tried
            if least <= down <= most and all(abs(down - other) >= text - 1e-6 for other in others)
        ]
    return min(free, key=lambda place: (abs(place.down - y), place.side, place.down), default=None)
