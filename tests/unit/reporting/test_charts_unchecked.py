"""Charts of a page are made without altair's checks: the same pictures, and checked as ever elsewhere."""

from __future__ import annotations

import altair as alt
import pytest
from altair.utils.schemapi import SchemaValidationError

from tessera.reporting.plots import inline, render, unchecked


def chart(mark: str = "point") -> alt.Chart:
    rows = inline([{"x": 1, "y": 2}, {"x": 2, "y": 3}])
    return alt.Chart(rows, mark=mark).encode(x=alt.X("x:Q"), y=alt.Y("y:Q"))  # type: ignore[arg-type]


def test_charts_are_the_same_unchecked_and_checked_again_afterwards() -> None:
    with unchecked():
        bare = render(chart())
    assert bare == render(chart())
    with pytest.raises(SchemaValidationError):
        render(chart("pointy"))
