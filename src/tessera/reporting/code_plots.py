"""Plots of semantic IDs: how codes are used, what collides, what a level knows, and which directions are left."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import altair as alt

from tessera.artifacts.shown import one_line
from tessera.reporting.plots import MOST_SERIES, Plot, described, group_order, inline, render, run_lines

Parts = Mapping[str, Mapping[str, Any]]
"""Name of recipe (and part) -> what health.json says of it."""
_STAGES = ("table", "latent", "reconstruction")


def _levels(parts: Parts, value: Callable[[Mapping[str, Any]], float | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, part in parts.items():
        for level in part["levels"][: len(part["levels"]) - part["extra"]]:
            measured = value(level)
            if measured is not None:
                says = f"{name}, level {level['level']}: {level['used']:,} of {level['size']:,} codes used"
                says += f", perplexity {level['perplexity']:.1f}"
                rows.append({"run": name, "group": str(level["level"]), "value": measured, "says": says})
    return rows


def use(parts: Parts) -> Plot | None:
    """How evenly the codes of each level are used: perplexity as a share of the codes."""
    rows = _levels(parts, lambda level: level["perplexity"] / level["size"])
    return _by_group(rows, parts, "codes-use", "level", "perplexity / codes", "Codes: how evenly each level is used")


def residuals(parts: Parts) -> Plot | None:
    """What is left of the vectors after each level."""
    rows: list[dict[str, Any]] = []
    for name, part in parts.items():
        for level, ratio in enumerate(part.get("residual_ratios") or [], 1):
            says = f"{name}, after level {level}: {ratio:.3f} of the norm is left"
            rows.append({"run": name, "group": str(level), "value": ratio, "says": says})
    return _by_group(rows, parts, "codes-residuals", "level", "norm left / norm", "Codes: what each level leaves over")


def groups(parts: Parts) -> Plot | None:
    """Items by how many share their codes."""
    rows: list[dict[str, Any]] = []
    for name, part in parts.items():
        sizes = part.get("meaningful_groups") or part["groups"]
        binned: dict[str, int] = {}
        for size, count in sizes.items():
            bin_ = next((text for most, text in _BINS if int(size) <= most), ">100")
            binned[bin_] = binned.get(bin_, 0) + int(size) * int(count)
        for bin_, items in binned.items():
            says = f"{name}: {items:,} items in groups of {bin_}"
            rows.append({"run": name, "group": bin_, "value": items / part["items"], "says": says})
    title = "Codes: items by the size of their group"
    return _by_group(rows, parts, "codes-groups", "items with the same codes", "share of items", title)


_BINS = ((1, "1"), (2, "2"), (3, "3"), (5, "4-5"), (10, "6-10"), (30, "11-30"), (100, "31-100"))


def purity(parts: Parts, most: int = 4) -> list[Plot]:
    """What each level knows of a category, less what shuffled categories give: a plot a category, the first ones."""
    attributes = dict.fromkeys(name for part in parts.values() for name in part.get("purity") or {})
    plots = []
    for attribute in list(attributes)[:most]:
        rows: list[dict[str, Any]] = []
        for name, part in parts.items():
            for level in (part.get("purity") or {}).get(attribute, []):
                value = level["information"] - level["information_by_chance"]
                says = f"{name}, level {level['level']}: information {level['information']:.3f}"
                says += f", by chance {level['information_by_chance']:.3f}"
                says += f"; majority {level['majority']:.1%}, by chance {level['majority_by_chance']:.1%}"
                rows.append({"run": name, "group": str(level["level"]), "value": value, "says": says})
        title = f"Codes: what prefixes know of {one_line(attribute, 80)!r}"
        axis = "codes of the prefix"
        plots.append(
            _by_group(rows, parts, f"codes-purity-{_slug(attribute)}", axis, "information above chance", title)
        )
    return [plot for plot in plots if plot is not None]


def _slug(name: str) -> str:
    """A file name of a name: what is lost of it comes back as a hash, so that no two names share a file."""
    slug = re.sub(r"\W+", "-", name.lower()).strip("-")[:60]
    plain = re.fullmatch(r"[a-z0-9 /_-]{1,60}", name)
    return slug if plain else f"{slug}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _by_group(rows: list[dict[str, Any]], parts: Parts, file: str, axis: str, name: str, title: str) -> Plot | None:
    """Lines over groups; of many recipes the first ones, as many as there are colours."""
    kept = list(parts)[:MOST_SERIES]
    rows = [row for row in rows if row["run"] in kept]
    names = sorted({row["group"] for row in rows}, key=group_order)
    if len(names) < 2:
        return None
    x = alt.X("group:N", sort=names, title=axis, axis=alt.Axis(labelAngle=0))
    return Plot(file, title, described(rows), render(run_lines(rows, x, name, kept)))


def spectra(parts: Parts, most: int = 6) -> list[Plot]:
    """Singular values of the centred table, latent vectors and reconstruction: a plot a part, the first ones."""
    plots = []
    for name, part in list(parts.items())[:most]:
        spectrum = part.get("spectrum") or {}
        rows = [
            {
                "run": stage,
                "place": place_,
                "value": value,
                "says": f"{stage}, direction {place_}: {value:.2g} of the largest singular value",
            }
            for stage in _STAGES
            if stage in spectrum
            for place_, value in spectrum[stage]["centred"]["singular"]
            if value > 0
        ]
        if len({row["place"] for row in rows}) < 2:
            continue
        file = f"codes-spectrum-{_slug(name)}"
        says = "; ".join(
            f"{stage}: information abundance {spectrum[stage]['centred']['information_abundance']:.1f} of "
            f"{spectrum[stage]['dim']}"
            for stage in _STAGES
            if stage in spectrum
        )
        plots.append(Plot(file, f"Spectrum of {name}, centred", says, render(_lines(rows))))
    return plots


def _lines(rows: list[dict[str, Any]]) -> alt.LayerChart:
    axis = alt.Axis(format="~s", tickCount=6)
    decades = alt.Axis(values=[10.0**power for power in range(-8, 1)], format=".0e")
    x = alt.X("place:Q", title="direction", axis=axis, scale=alt.Scale(nice=False))
    y = alt.Y("value:Q", title="singular value / largest", scale=alt.Scale(type="log"), axis=decades)
    colour = alt.Color(
        "run:N",
        scale=alt.Scale(domain=list(_STAGES), range=[f"var(--c{number})" for number in range(3)]),
        title=None,
        legend=alt.Legend(orient="bottom"),
    )
    base = alt.Chart(inline(rows)).encode(x=x, y=y, color=colour)
    # dashes, so that a reconstruction does not hide latent vectors with the same spectrum
    dashes = alt.Scale(domain=list(_STAGES), range=[[1, 0], [1, 0], [4, 4]])
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=alt.StrokeDash("run:N", scale=dashes, legend=None))
    points = base.mark_point(filled=True, size=40, opacity=0).encode(description="says:N")  # to hover over
    layers: alt.LayerChart = (lines + points).properties(width=460, height=250)
    return layers
