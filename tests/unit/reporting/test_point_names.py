"""Names of points in a plot: apart from one another, in the plot, and near their points."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from tessera.reporting.point_names import Plane, place_names

TEXT = 13


def placed(count: int, lowest: float = 0.1) -> tuple[list[dict[str, Any]], Plane]:
    """Points at almost one place, between two others."""
    points = [("left", 1.0, lowest), *((f"system-{n}", 100 + n / 10, 0.1 + n / 10_000) for n in range(count))]
    rows = [{"run": run, "x": x, "y": y} for run, x, y in [*points, ("right", 1e4, 0.2)]]
    plane = Plane((0.5, 2e4), (min(0.1, lowest) - 0.01, 0.21), 420, 300)
    place_names(rows, plane, TEXT)
    return rows, plane


def box(row: dict[str, Any], plane: Plane) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of a name."""
    near, middle = plane.pixels(row["name_x"], row["name_y"])
    wide = 7 * len(row["run"])
    left = near if row["side"] == "left" else near - wide
    return left, left + wide, middle - TEXT / 2, middle + TEXT / 2


@pytest.mark.parametrize("lowest", [0.1, -0.3], ids=["at the bottom of the plot", "above others"])
def test_names_stand_apart_and_in_the_plot(lowest: float) -> None:
    rows, plane = placed(20, lowest)
    assert {row["side"] for row in rows} == {"left", "right"}
    boxes = [box(row, plane) for row in rows]
    for left, right, top, bottom in boxes:
        assert left >= 0
        assert right <= plane.width
        assert top >= -1e-6
        assert bottom <= plane.height + 1e-6
    for one, other in combinations(boxes, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or min(one[3], other[3]) <= max(one[2], other[2]) + 1e-6
        assert apart
    points = [plane.pixels(row["x"], row["y"]) for row in rows]
    assert not any(left < x < right and top < y < bottom for left, right, top, bottom in boxes for x, y in points)


def test_wide_letters_take_two_places() -> None:
    """A class of another's package may be named in any script; letters of a whole square would leave the plot."""
    plane = Plane((1.0, 100.0), (0.0, 1.0), 420, 300)
    names = {"rows/Model_of_some_rec": "left", "rows/混合模型混合模型混合": "right"}  # of as many letters, or fewer
    for name, side in names.items():
        rows: list[dict[str, Any]] = [{"run": name, "x": plane.values(230, 0)[0], "y": 0.5}]
        place_names(rows, plane, TEXT)
        assert rows[0]["side"] == side, name


def test_a_name_that_is_not_beside_its_point_gets_a_line() -> None:
    rows, plane = placed(20)
    for row in rows:
        (_, down), (_, at) = plane.pixels(row["x"], row["y"]), plane.pixels(row["name_x"], row["name_y"])
        assert row["moved"] == (abs(down - at) > TEXT / 2)
        assert (row["name_x"] > row["x"]) == (row["side"] == "left")
    assert {row["moved"] for row in rows} == {True, False}


def test_who_can_stand_beside_the_point_does() -> None:
    rows, _ = placed(20)
    assert [row["moved"] for row in rows if row["run"] in ("left", "right")] == [False, False]


def test_a_name_without_a_place_is_not_drawn() -> None:
    rows, _ = placed(60)
    drawn = [row["side"] for row in rows]
    assert 40 <= sum(map(bool, drawn)) < 62
