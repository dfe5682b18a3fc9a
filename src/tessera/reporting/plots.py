"""Plots as SVG: one set of charts for the page, which colours them by its theme, and for papers.

Colours in the charts are CSS variables. The page defines them twice, light and dark, so one SVG serves both; for a
file of its own they are replaced by the light colours. Every mark carries its values as `aria-label`, which the page
shows on hover and a screen reader reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from tessera.reporting.runs import Entry, label
from tessera.reporting.tables import Column, Table

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
        "labelFont": font, "titleFont": font, "titleFontWeight": "normal", "labelFontSize": 12, "titleFontSize": 12,
        "labelLimit": 190,
    }  # fmt: skip
    # widths are measured in another font than the reader's, which may be wider: leave room
    axis_left = {"titlePadding": 16}
    legend = {
        "labelColor": ink, "titleColor": muted, "labelFont": font, "titleFont": font, "labelFontSize": 12,
        "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 190, "symbolStrokeWidth": 2,
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
    return f'{head} width="{width:g}" role="img">{plain}'


def colours(names: Sequence[str], oracle: Sequence[str] = ()) -> alt.Scale:
    """A colour for each name, the same as long as the names are."""
    plain = [name for name in names if name not in oracle]
    series = {name: _SERIES[number % MOST_SERIES] for number, name in enumerate(plain)}
    return alt.Scale(domain=list(names), range=[series.get(name, _ORACLE) for name in names])


def by_run(table: Table[Any], metric: str) -> Plot | None:
    """Bars of the main metric, the standard deviation over seeds as a whisker."""
    rows: list[dict[str, Any]] = []
    for entry in table.entries:
        cell = table.cells.get((entry.name, Column(metric)))
        if cell is not None:
            sd = cell.sd or 0.0
            spread = f" ± {sd:.4f}" if cell.sd is not None else ""
            rows.append(
                {
                    "run": label(entry),
                    "value": cell.mean,
                    "low": cell.mean - sd,
                    "high": cell.mean + sd,
                    "kind": "oracle" if entry.is_oracle else entry.recommender,
                    "says": f"{label(entry)}: {metric} {cell.mean:.4f}{spread}",
                }
            )
    if not rows:
        return None
    names = [row["run"] for row in rows]
    room = min(200, 8 * max(map(len, names)))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("run:N", sort=names, title=None, axis=alt.Axis(minExtent=room)), description="says:N"
    )
    title = table.header(Column(metric))
    bars = base.mark_bar(cornerRadiusEnd=2).encode(
        x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=6)),
        color=alt.Color("kind:N", scale=colours(kinds, ["oracle"]), title=None, legend=alt.Legend(orient="top")),
    )
    whiskers = base.mark_rule(color="var(--ink)", strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    chart = (bars + whiskers).properties(width=460, height=alt.Step(max(24, min(40, 240 // len(rows)))))
    return Plot("by-run", f"{title} by run", described(rows), render(chart))


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
    table: Table[Any], metric: str, kind: str, name: str, axis: str, file: str, zero: bool = True
) -> Plot | None:
    """Lines of a metric over the groups of one kind, for the chosen entries.

    Args:
        kind: of the groups.
        name: what the groups are of, for the title.
        axis: what the groups are, for the axis.
        file: name of the file without its ending.
        zero: whether the axis of the metric begins at 0.
    """
    rows: list[dict[str, Any]] = []
    groups: list[str] = []
    shown = chosen(table, metric)
    for entry in shown:
        for column, cell in ((c, cell) for (n, c), cell in table.cells.items() if n == entry.name):
            if column.kind != kind or column.metric != metric:
                continue
            count = f"{cell.count or 0:,}"
            group = f"{column.group} ({count})"
            groups += [group] if group not in groups and not entry.is_oracle else []
            sd = f" ± {cell.sd:.4f}" if cell.sd is not None else ""
            says = f"{label(entry)}, {axis} {column.group}: {metric} {cell.mean:.4f}{sd} ({count} {table.COUNTED})"
            rows.append({"run": label(entry), "group": group, "value": cell.mean, "says": says})
    rows = [row for row in rows if row["group"] in groups]
    groups.sort(key=group_order)
    if len(groups) < 2:
        return None
    title = f"{table.header(Column(metric))} by {name}"
    x = alt.X("group:N", sort=groups, title=f"{axis} ({table.COUNTED})", axis=alt.Axis(labelAngle=0))
    chart = run_lines(rows, x, metric, [label(entry) for entry in shown], zero)
    return Plot(file, title, described(rows), render(chart))


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
    legend = alt.Legend(orient="bottom", columns=3)
    scale = alt.Scale(domain=names, range=[every.range[list(known).index(name)] for name in names])
    colour = alt.Color("run:N", scale=scale, title=None, legend=legend)
    shapes = [SHAPES[list(known).index(name) % len(SHAPES)] for name in names]
    shape = alt.Shape("run:N", scale=alt.Scale(domain=names, range=shapes), title=None, legend=legend)
    base = alt.Chart(inline(rows)).encode(
        x=x, y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=zero)), color=colour
    )
    lines = base.mark_line(strokeWidth=2).encode(detail=["run:N", "seed:N"] if "seed" in rows[0] else ["run:N"])
    points = base.mark_point(size=46, filled=True, opacity=1).encode(shape=shape, description="says:N")
    layers: alt.LayerChart = (lines + points).properties(width=460, height=250)
    return layers


def run_points(rows: list[dict[str, Any]], x: alt.X, y: alt.Y, names: Sequence[str]) -> alt.Chart:
    """A point a run, told apart by colour and shape."""
    legend = alt.Legend(orient="bottom", columns=3)
    shapes = alt.Scale(domain=list(names), range=[SHAPES[number % len(SHAPES)] for number in range(len(names))])
    points = alt.Chart(inline(rows)).mark_point(size=110, filled=True, opacity=1)
    chart: alt.Chart = points.encode(
        x=x,
        y=y,
        color=alt.Color("run:N", scale=colours(names), title=None, legend=legend),
        shape=alt.Shape("run:N", scale=shapes, title=None, legend=legend),
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
    ends: dict[str, str] = {row["run"]: f"{row['run']} ends at {row['value']:.4f}" for row in rows}
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
