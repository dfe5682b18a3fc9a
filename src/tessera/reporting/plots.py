"""Plots as SVG: one set of charts for the page, which colours them by its theme, and for papers.

Colours in the charts are CSS variables. The page defines them twice, light and dark, so one SVG serves both; for a
file of its own they are replaced by the light colours. Every mark carries its values as `aria-label`, which the page
shows on hover and a screen reader reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
from altair.utils.schemapi import debug_mode

from tessera.reporting.point_names import Plane, name_width, place_names
from tessera.reporting.runs import Entry, label
from tessera.reporting.tables import Cell, Column, Table

LIGHT = {
    "--ink": "#1d2330",
    "--muted": "#5b6474",
    "--line": "#d9dde5",
    "--c0": "#2f6fc4",
    "--c1": "#c2531a",
    "--c2": "#1d8a63",
    "--c3": "#a8407f",
    "--c4": "#8a6d00",
    "--c5": "#6250b8",
    "--c6": "#3d7f92",
    "--c7": "#7a4b2f",
    "--c8": "#7c8595",
}
"""The light theme; the dark one stands in page.css."""

_SERIES = [f"var(--c{number})" for number in range(8)]
_ORACLE = "var(--c8)"
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
MOST_SERIES = len(_SERIES)


_TEXT, _LEAST_TEXT = 13, 12
"""Pixels of the text of plots: as drawn, and at least where the page has less room."""
_NAME, _LONGEST_NAME = 190, 420
"""Pixels of names: what three columns of a legend have, and what names are cut at."""


@dataclass(frozen=True)
class Plot:
    """A finished chart."""

    name: str
    """File name without its ending."""
    title: str
    description: str
    """What it shows, for those who do not see it."""
    svg: str
    """With CSS variables as colours."""

    def standalone(self) -> str:
        """SVG for a file of its own, in the light colours."""
        return re.sub(r"var\((--\w+)\)", lambda name: LIGHT[name[1]], self.svg)


@contextmanager
def unchecked() -> Iterator[None]:
    """Make charts without holding each part of them against Vega-Lite's schema, as altair does otherwise.

    It takes a seventh of a page's time, and which charts there are is settled by the code: tests make them checked.
    """
    with debug_mode(False):
        yield


def inline(rows: list[dict[str, Any]]) -> alt.InlineData:
    """Rows as the data of a chart."""
    return alt.InlineData(values=rows)


def render(chart: alt.TopLevelMixin) -> str:
    """The chart as SVG with CSS variables as colours."""
    import vl_convert

    muted, ink, line = "var(--muted)", "var(--ink)", "var(--line)"
    font = "system-ui, sans-serif"
    axis = {
        "labelColor": muted, "titleColor": ink, "gridColor": line, "domainColor": line, "tickColor": line,
        "labelFont": font, "titleFont": font, "titleFontWeight": "normal",
        "labelFontSize": _TEXT, "titleFontSize": _TEXT, "labelLimit": _NAME,
    }  # fmt: skip
    # widths are measured in another font than the reader's, which may be wider: leave room
    axis_left = {"titlePadding": 16}
    legend = {
        "labelColor": ink, "titleColor": muted, "labelFont": font, "titleFont": font, "labelFontSize": _TEXT,
        "titleFontSize": _TEXT, "titleFontWeight": "normal", "labelLimit": _NAME, "symbolStrokeWidth": 2,
        "columnPadding": 36, "rowPadding": 5,
    }  # fmt: skip
    specification = chart.to_dict()
    specification["config"] = {
        "background": None, "font": font, "view": {"stroke": None}, "axis": axis,
        "axisLeft": axis_left, "legend": legend, "padding": {"left": 12, "right": 16, "top": 5, "bottom": 5},
    }  # fmt: skip
    svg = str(vl_convert.vegalite_to_svg(json.dumps(specification)))
    return _scalable(svg)


def _scalable(svg: str) -> str:
    """The SVG ready for a page: no height of its own, and ids that depend on its content alone.

    Vega numbers its clip paths through the life of the process: the same chart would differ from run to run, and
    charts made by two processes would share ids.
    """
    stated = re.search(r'<svg[^>]*?\swidth="([\d.]+)"', svg)
    width = float(stated[1]) if stated else 600.0
    head, _, rest = svg.partition(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    numbers = {clip: number for number, clip in enumerate(dict.fromkeys(re.findall(r'id="clip(\d+)"', rest)))}
    plain = re.sub(r'(id="|url\(#)clip(\d+)', lambda hit: f"{hit[1]}clip{numbers[hit[2]]}", rest)
    own = hashlib.sha256(plain.encode()).hexdigest()[:8]
    plain = re.sub(r'(id="|url\(#)clip(\d+)', rf"\g<1>clip-{own}-\2", plain)
    # where there is less room, the text becomes no smaller than 12 pixels: then the plot scrolls in its box
    least = f"min-width:{width * _LEAST_TEXT / _TEXT:.0f}px"
    return f'{head} width="{width:g}" style="{least}" role="img">{plain}'


def colours(names: Sequence[str], oracle: Sequence[str] = ()) -> alt.Scale:
    """A colour for each name, the same as long as the names are."""
    plain = [name for name in names if name not in oracle]
    series = {name: _SERIES[number % MOST_SERIES] for number, name in enumerate(plain)}
    return alt.Scale(domain=list(names), range=[series.get(name, _ORACLE) for name in names])


def shapes(count: int) -> list[str]:
    """A shape a series: beyond as many as there are colours, a pair of colour and shape still stands once."""
    return [SHAPES[(number + number // MOST_SERIES) % len(SHAPES)] for number in range(count)]


def _room(names: Sequence[str]) -> int:
    """Pixels for the longest of some names, of which only the end may differ from others."""
    return min(max(_NAME, *(math.ceil(name_width(name)) for name in names)), _LONGEST_NAME)


def _legend(names: Sequence[str]) -> alt.Legend:
    """The legend under a plot, in as many columns as have room."""
    room = _room(names)
    return alt.Legend(orient="bottom", columns=3 * _NAME // room, labelLimit=room)


def by_run(
    table: Table[Any],
    metric: str,
    intervals: Mapping[str, tuple[float, float]],
    outside: float,
    file: str = "by-run",
) -> Plot | None:
    """A dot a row with its interval, the best first; the baselines and the bounds are told apart by colour.

    Args:
        intervals: name of a row -> the interval of its mean; without one, its cell's own or the sd over seeds is drawn.
        outside: the share that intervals leave out.
        file: name of the file without its ending.
    """
    rows: list[dict[str, Any]] = []
    column = Column(metric)
    for entry in table.ranked(metric):
        cell = table.cell(entry, column)
        if cell is None:
            continue
        low, high = intervals.get(entry.name, (cell.low, cell.high))
        ends = [table.text(column, end) for end in (low, high) if end is not None]
        drawn = f", {' to '.join(ends)}" if ends else ""
        spread = f" ± {table.text(column, cell.sd)}" if cell.sd is not None else ""
        sd = cell.sd or 0.0
        rows.append(
            {
                "run": label(entry),
                "value": cell.mean,
                "low": cell.mean - sd if low is None else low,
                "high": cell.mean + sd if high is None else high,
                "kind": _kind(table, entry),
                "says": f"{label(entry)}: {metric} {table.text(column, cell.mean)}{spread}{drawn}",
            }
        )
    if not rows:
        return None
    names = [row["run"] for row in rows]
    known = bool(intervals) or any(table.interval(column, cell) for (_, c), cell in table.cells.items() if c == column)
    title = table.header(column)
    room = _room(names)
    axis = alt.Axis(minExtent=min(room + 10, 8 * max(map(len, names))), labelLimit=room, grid=True)
    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("run:N", sort=names, title=None, axis=axis), description="says:N", color=kind_colour(rows)
    )
    scale = around([row[end] for row in rows for end in ("low", "high")])
    # labels at the ends would be pushed into their neighbours
    ticks = alt.Axis(labelFlush=False, labelSeparation=8)
    x = alt.X("value:Q", title=title, scale=scale, axis=ticks)
    points = base.mark_point(size=80, filled=True, opacity=1).encode(x=x)
    whiskers = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    chart = (whiskers + points).properties(width=380, height=alt.Step(26))
    what = f"{100 * (1 - outside):g} % intervals" if known else "deviations over seeds"
    return Plot(file, f"{title} by {table.ROW}, with {what}", described(rows), render(chart))


_KINDS = {"system": "var(--c0)", "baseline": "var(--c1)", "bound": _ORACLE}


def _kind(table: Table[Any], entry: Entry[Any]) -> str:
    return "bound" if table.is_bound(entry) else "baseline" if table.is_baseline(entry) else "system"


def kind_colour(rows: Sequence[Mapping[str, Any]]) -> alt.Color:
    """Systems, baselines and bounds in colours of their own."""
    kinds = [kind for kind in _KINDS if any(row["kind"] == kind for row in rows)]
    scale = alt.Scale(domain=kinds, range=[_KINDS[kind] for kind in kinds])
    return alt.Color("kind:N", scale=scale, title=None, legend=alt.Legend(orient="top"))


def around(values: Sequence[float]) -> alt.Scale:
    """A scale with some room around values."""
    return alt.Scale(domain=[*room_around(values)], zero=False)


def room_around(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a scale with some room around values."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.02
    return low - room, high + room


COSTS = {
    "seconds": "seconds of training, a seed (log)",
    "parameters": "trained parameters (log)",
    "memory": "peak memory of training, MiB (log)",
}
_COST_NAMES = {"seconds": "training time", "parameters": "parameters", "memory": "memory"}
_WIDTH, _HEIGHT = 420, 300
"""Pixels of the plots of costs."""


def by_cost(table: Table[Any], metric: str, costs: Mapping[str, Mapping[str, float | None]], key: str) -> Plot | None:
    """The metric against a cost, a named point a row; rows whose cost is not known are left out.

    Args:
        costs: name of a row -> its costs by the keys of `COSTS`.
        key: which cost.
    """
    rows: list[dict[str, Any]] = []
    column = Column(metric)
    for entry in table.ranked(metric):
        cost, cell = costs[entry.name][key], table.cell(entry, column)
        if cost and cell is not None:
            says = f"{label(entry)}: {metric} {table.text(column, cell.mean)}, {key} {cost:,.0f}"
            rows.append({"run": label(entry), "x": cost, "y": cell.mean, "kind": _kind(table, entry), "says": says})
    if len(rows) < 2:
        return None
    low, high = min(row["x"] for row in rows) / 1.3, max(row["x"] for row in rows) * 1.3
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    ends = room_around([row["y"] for row in rows])
    heights = alt.Scale(domain=[*ends], zero=False)
    place_names(rows, Plane((low, high), ends, _WIDTH, _HEIGHT), _TEXT)
    bare = alt.Chart(inline(rows)).encode(
        x=alt.X("x:Q", title=COSTS[key], scale=scale, axis=alt.Axis(format="~s", tickCount=5))
    )
    base = bare.encode(color=kind_colour(rows))
    points = base.mark_point(size=80, filled=True, opacity=1).encode(
        y=alt.Y("y:Q", title=table.header(column), scale=heights), description="says:N"
    )
    lines = bare.mark_rule(stroke="var(--muted)", strokeWidth=0.6).transform_filter("datum.moved")
    chart: alt.LayerChart = lines.encode(y=alt.Y("y:Q", scale=heights), x2="name_x:Q", y2="name_y:Q") + points
    sides: tuple[tuple[Literal["left", "right"], int], ...] = (("left", 9), ("right", -9))
    for side, shift in sides:
        names = base.mark_text(align=side, dx=shift, baseline="middle", fontSize=_TEXT, fill="var(--ink)")
        chart += names.transform_filter(f"datum.side == '{side}'").encode(
            y=alt.Y("name_y:Q", scale=heights), text="run:N"
        )
    drawn = chart.properties(width=_WIDTH, height=_HEIGHT)
    return Plot(f"by-{key}", f"{table.header(column)} against {_COST_NAMES[key]}", described(rows), render(drawn))


def described(rows: Sequence[dict[str, Any]]) -> str:
    """What the marks say, for those who do not see them."""
    return "; ".join(str(row["says"]) for row in rows)


def chosen(table: Table[Any], metric: str) -> list[Entry[Any]]:
    """The entries that line plots show: all, or when they are many, each system under its best recommender."""
    competitors, bounds = table.competitors, [entry for entry in table.entries if table.is_bound(entry)]

    if len(competitors) > MOST_SERIES:
        best = {entry.system: entry for entry in sorted(competitors, key=lambda entry: table.mean(entry, metric))}
        competitors = [entry for entry in competitors if best[entry.system] is entry]
    if len(competitors) > MOST_SERIES:
        kept = sorted(competitors, key=lambda entry: table.mean(entry, metric), reverse=True)[:MOST_SERIES]
        competitors = [entry for entry in competitors if entry in kept]
    return [*competitors, *bounds]


def by_group(
    table: Table[Any],
    metric: str,
    kind: str,
    name: str,
    axis: str,
    file: str,
    zero: bool = True,
    averaged: bool = True,
) -> Plot | None:
    """Lines of a metric over the groups of one kind, for the chosen entries.

    Args:
        kind: of the groups.
        name: what the groups are of, for the title.
        axis: what the groups are, for the axis.
        file: name of the file without its ending.
        zero: whether the axis of the metric begins at 0.
        averaged: whether the metric is a mean over what is counted: then groups of few are drawn with a neighbour.
    """
    rows: list[dict[str, Any]] = []
    shown = chosen(table, metric)
    cells: dict[str, dict[str, Cell]] = {entry.name: {} for entry in shown}
    for (row, column), cell in table.cells.items():
        if row in cells and (column.kind, column.metric) == (kind, metric):
            cells[row][column.group] = cell
    counts: dict[str, int] = {}
    for entry in shown:
        if not entry.is_oracle:
            counts |= {group: cell.count or 0 for group, cell in cells[entry.name].items()}
    together = merged(counts) if averaged else [[group] for group in sorted(counts, key=group_order)]
    groups = [f"{', '.join(part)} ({sum(counts[group] for group in part):,})" for part in together]
    for entry in shown:
        for part, group in zip(together, groups, strict=True):
            own = [cells[entry.name][one] for one in part if one in cells[entry.name]]
            users = sum(cell.count or 0 for cell in own)
            if not own or (len(own) > 1 and not users):
                continue
            value = own[0].mean if len(own) == 1 else sum(cell.mean * (cell.count or 0) for cell in own) / users
            sd = f" ± {own[0].sd:.4f}" if len(own) == 1 and own[0].sd is not None else ""
            said = f"{axis} {', '.join(part)}: {metric} {value:.4f}{sd} ({users:,} {table.COUNTED})"
            rows.append({"run": label(entry), "group": group, "value": value, "says": f"{label(entry)}, {said}"})
    if len(groups) < 2:
        return None
    title = f"{table.header(Column(metric))} by {name}"
    x = alt.X("group:N", sort=groups, title=f"{axis} ({table.COUNTED})", axis=alt.Axis(labelAngle=0))
    chart = run_lines(rows, x, metric, [label(entry) for entry in shown], zero)
    return Plot(file, title, described(rows), render(chart))


FEW_IN_GROUP = 30
"""Groups of fewer are drawn together with a neighbour: a mean of so few says little."""


def merged(counts: Mapping[str, int]) -> list[list[str]]:
    """Groups in their order, those of few together with the next, the last ones with the one before.

    Args:
        counts: group -> how many it has.
    """
    parts: list[list[str]] = []
    waiting: list[str] = []
    for group in sorted(counts, key=group_order):
        waiting.append(group)
        if sum(counts[one] for one in waiting) >= FEW_IN_GROUP:
            parts.append(waiting)
            waiting = []
    if waiting:
        parts[-1:] = [[*(parts[-1] if parts else []), *waiting]]
    return parts


def group_order(name: str) -> tuple[bool, float]:
    """Where a group or bin belongs: `>50` after all, the others by their first number, names before numbers."""
    number = re.search(r"\d+(\.\d+)?", name)
    return name.startswith(">"), float(number[0]) if number else -1.0


def run_lines(
    rows: list[dict[str, Any]], x: alt.X, title: str, known: Sequence[str], zero: bool = True
) -> alt.LayerChart:
    """Lines by run; `known` lists all runs of the table's line plots, so that a run looks the same in each of them."""
    present = {row["run"] for row in rows}
    names = [name for name in known if name in present]
    every = colours(known, ["oracle"])
    legend = _legend(names)
    scale = alt.Scale(domain=names, range=[every.range[list(known).index(name)] for name in names])
    colour = alt.Color("run:N", scale=scale, title=None, legend=legend)
    marks = dict(zip(known, shapes(len(known)), strict=True))
    marks_shown = alt.Scale(domain=names, range=[marks[name] for name in names])
    shape = alt.Shape("run:N", scale=marks_shown, title=None, legend=legend)
    base = alt.Chart(inline(rows)).encode(
        x=x, y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=zero)), color=colour
    )
    lines = base.mark_line(strokeWidth=2).encode(detail=["run:N", "seed:N"] if "seed" in rows[0] else ["run:N"])
    points = base.mark_point(size=46, filled=True, opacity=1).encode(shape=shape, description="says:N")
    layers: alt.LayerChart = (lines + points).properties(width=460, height=250)
    return layers


def run_points(rows: list[dict[str, Any]], x: alt.X, y: alt.Y, names: Sequence[str]) -> alt.Chart:
    """A point a run, told apart by colour and shape."""
    legend = _legend(names)
    marks = alt.Scale(domain=list(names), range=shapes(len(names)))
    points = alt.Chart(inline(rows)).mark_point(size=110, filled=True, opacity=1)
    chart: alt.Chart = points.encode(
        x=x,
        y=y,
        color=alt.Color("run:N", scale=colours(names), title=None, legend=legend),
        shape=alt.Shape("run:N", scale=marks, title=None, legend=legend),
        description="says:N",
    ).properties(width=460, height=250)
    return chart


def training(table: Table[Any], metric: str, curves: dict[str, list[tuple[int, int, float]]], name: str) -> Plot | None:
    """Curves over epochs, a line a seed.

    Args:
        curves: entry name -> (seed, epoch, value).
    """
    rows: list[dict[str, Any]] = []
    for entry in chosen(table, metric):
        for seed, epoch, value in curves.get(entry.name, []):
            says = f"{label(entry)}, seed {seed}, epoch {epoch}: {name} {value:.4f}"
            rows.append({"run": label(entry), "seed": seed, "epoch": epoch, "value": value, "says": says})
    epochs = sorted({row["epoch"] for row in rows})
    if len(epochs) < 2:
        return None
    step = -(-(epochs[-1] - epochs[0]) // 8)
    ticks = alt.Axis(values=list(range(epochs[0], epochs[-1] + 1, step)), format="d")
    x = alt.X("epoch:Q", title="epoch", axis=ticks, scale=alt.Scale(domain=[epochs[0], epochs[-1]], nice=False))
    ends = {(row["run"], row["seed"]): f"{row['run']}, seed {row['seed']}, ends at {row['value']:.4f}" for row in rows}
    file = re.sub(r"\W+", "-", name.lower()).strip("-")
    chart = run_lines(rows, x, name, [label(entry) for entry in chosen(table, metric)], zero=False)
    return Plot(f"training-{file}", f"Training: {name}", "; ".join(ends.values()), render(chart))


def lengths(counts: dict[int, int]) -> Plot | None:
    """Histogram of history lengths in at most 20 bins of one width; the longest 1 % share the last bin.

    Args:
        counts: length -> users.
    """
    if not counts:
        return None
    bins = length_bins(counts)
    says = [f"{text} interactions: {users:,} users" for text, users in bins]
    rows = [{"bin": b, "value": users, "says": text} for (b, users), text in zip(bins, says, strict=True)]
    axis = alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=12, ticks=False)
    x = alt.X("bin:N", sort=[text for text, _ in bins], title="interactions of a user", axis=axis)
    y = alt.Y("value:Q", title="users", axis=alt.Axis(tickCount=4, format="~s"))
    bars = alt.Chart(inline(rows)).mark_bar(color="var(--c0)").encode(x=x, y=y, description="says:N")
    chart: alt.Chart = bars.properties(width=320, height=160)
    return Plot("lengths", "History lengths", described(rows), render(chart))


def length_bins(counts: dict[int, int], most: int = 20) -> list[tuple[str, int]]:
    """Users by history length: (name of the bin, users), empty bins between the ends kept."""
    total, seen, high = sum(counts.values()), 0, max(counts)
    for length in sorted(counts):
        seen += counts[length]
        if seen >= 0.99 * total:
            high = length
            break
    low = min(counts)
    width = next(w for e in range(9) for w in (10**e, 2 * 10**e, 5 * 10**e) if (high - low) // w < most)
    start = low if width == 1 else low // width * width
    bins = []
    for first in range(start, high + 1, width):
        last = first + width - 1
        users = sum(n for length, n in counts.items() if first <= length <= last)
        bins.append((str(first) if width == 1 else f"{first}-{last}", users))
    rest = sum(n for length, n in counts.items() if length > last)
    return [*bins, (f">{last}", rest)] if rest else bins


def popularity(counts: Sequence[int], items: int) -> Plot | None:
    """Training interactions by popularity rank, both axes logarithmic.

    Args:
        counts: most popular first; of a large catalogue at evenly spaced ranks.
        items: how many items there are.
    """
    if not counts:
        return None
    step = (items - 1) / max(1, len(counts) - 1)
    points = {round(1 + number * step): count for number, count in enumerate(counts)}
    # even spacing on the logarithmic axis: more points would only thicken the line
    ranks = sorted({min(points, key=lambda rank: abs(rank - wanted)) for wanted in _logarithmic(items, 48)})
    rows = [
        {"rank": rank, "value": points[rank], "says": f"item of rank {rank:,}: {points[rank]:,} interactions in train"}
        for rank in ranks
    ]
    ticks = alt.Axis(format="~s", tickCount=4)
    plain = alt.Axis(format="~s", tickCount=4, grid=False)
    x = alt.X("rank:Q", title="items, most popular first", scale=alt.Scale(type="log", nice=False), axis=plain)
    y = alt.Y("value:Q", title="interactions in train", scale=alt.Scale(type="symlog"), axis=ticks)
    base = alt.Chart(inline(rows)).encode(x=x, y=y)
    area = base.mark_area(color="var(--c0)", opacity=0.18)
    line = base.mark_line(color="var(--c0)", strokeWidth=2)
    points_drawn = base.mark_point(color="var(--c0)", filled=True, size=14).encode(description="says:N")
    says = f"{counts[0]:,} interactions of the most popular item, {counts[len(counts) // 2]:,} of the middle one"
    chart: alt.LayerChart = (area + line + points_drawn).properties(width=320, height=160)
    return Plot("popularity", "Item popularity", says, render(chart))


def _logarithmic(last: int, count: int) -> list[float]:
    return [float(last) ** (number / (count - 1)) for number in range(count)]
