"""What a benchmark measured over a size, as a chart in a file of its own: a line a name, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def line_plot(
    points: list[dict[str, Any]], names: Sequence[str], titles: tuple[str, str], about: tuple[str, str]
) -> str:
    """The chart as SVG.

    Args:
        points: `name`, `x` and `y` of each; more than zero.
        names: the lines, in the order of the legend.
        titles: of the two axes.
        about: the chart's name, and what is drawn, for readers who do not see it.
    """
    import altair as alt

    from tessera.reporting.plots import Plot, inline, render

    colours = alt.Scale(domain=list(names), range=[f"var(--c{number % 8})" for number in range(len(names))])
    dashes = alt.Scale(domain=list(names), range=([[1, 0]] * 8 + [[5, 3]] * 8)[: len(names)])
    sizes = sorted({point["x"] for point in points})
    decades = alt.Axis(values=[10.0**power for power in range(-4, 7)])
    legend = alt.Legend(title=None, symbolType="stroke", symbolSize=300, symbolStrokeWidth=2)  # dashes are seen in it
    chart = (
        alt.Chart(inline(points))
        .encode(
            x=alt.X("x:Q", title=titles[0], scale=alt.Scale(type="log", nice=False), axis=alt.Axis(values=sizes)),
            y=alt.Y("y:Q", title=titles[1], scale=alt.Scale(type="log"), axis=decades),
            color=alt.Color("name:N", scale=colours, sort=list(names), legend=legend),
            strokeDash=alt.StrokeDash("name:N", scale=dashes, sort=list(names), legend=legend),
        )
        .mark_line(point=True)
        .properties(width=520, height=340)
    )
    return Plot("line-plot", *about, render(chart)).standalone() + "\n"
