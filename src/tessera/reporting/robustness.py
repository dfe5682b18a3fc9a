"""What systems come to as more and more is missing: metrics at every rate, the areas under them, and their curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tessera.artifacts.places import CORRUPTED
from tessera.artifacts.tables import ArtifactError, describe, read_table
from tessera.evaluation import metrics
from tessera.evaluation.groups import effective_ranks, repeated
from tessera.evaluation.significance import p_values
from tessera.reporting.plots import Plot, colours, inline, render, run_lines
from tessera.reporting.ranking import RankingTable, bare_table
from tessera.reporting.ranking_runs import RankingRun, counted, same_users
from tessera.reporting.runs import Array, Entry, baselines_of, label
from tessera.reporting.tables import Column, Key, Metric
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.missing import LOST, Lose, Pattern, Robustness, percent

AREA = "AUILC"
"""Area under the curve of a metric over the missing rate (CIDer: area under indicators line chart)."""
CHANGE = "change to "

_PATTERNS: dict[Pattern, str] = {
    "item_consistent": "each modality of an item for itself, the same in every history and for candidates",
    "one_modality": "an item that is hit loses exactly one modality, the same in every history and for candidates",
    "feature": "each modality of each position of a history for itself",
    "same_rate": "each modality of each position of a history for itself, at one rate",
    "whole_modality": "a history loses all of a modality",
    "same_steps": "all modalities at the same positions of a history",
    "block": "all modalities over a contiguous stretch of a history",
}

Values = dict[tuple[str, str], dict[str, Array]]
"""(kind, group) -> metric -> (users,)"""


@dataclass(kw_only=True)
class RobustnessTable(RankingTable):
    """A column for the area under each curve, and for some of its points."""

    robustness: Robustness

    @property
    def kinds(self) -> dict[str, tuple[Pattern, Lose]]:
        """The curves by the name that their columns have."""
        return {f"{pattern} {lose}": (pattern, lose) for pattern, lose in self.robustness.curves}

    @property
    def points(self) -> list[float]:
        """Rates above 0 that are printed: the one nearest to a half, and 1."""
        rates = [rate for rate in self.robustness.rates if rate]
        return sorted({min(rates, key=lambda rate: abs(rate - 0.5)), 1.0})

    @property
    def shown(self) -> list[Column]:
        """What is printed and tested: the main metric with nothing lost, and of every curve its area, points, falls."""
        kinds = list(self.kinds)
        columns = [Column(self.main, kinds[0], _told(0.0))]
        for kind in kinds:
            columns.append(Column(self.main, kind, AREA))
            columns += [Column(self.main, kind, _told(rate)) for rate in self.points]
            columns += [Column(self.main, kind, CHANGE + _told(rate)) for rate in self.points]
        return columns

    @property
    def columns(self) -> list[Column]:
        """See `shown`."""
        return self.filled(self.shown)

    def metric(self, column: Column) -> Metric:
        """No change is the best: who reads nothing that is lost has nothing to lose."""
        metric = super().metric(column)
        return replace(metric, better="neither") if column.group.startswith(CHANGE) else metric

    def header(self, column: Column) -> str:
        """Metric, what is lost, and under which pattern."""
        metric = column.metric + metrics.protocol_suffix(column.metric, self.protocol)
        if column.kind not in self.kinds:
            return super().header(column)
        pattern, lose = self.kinds[column.kind]
        if column.group == AREA:
            return f"{AREA} of {metric}, {LOST[lose]}, {pattern}"
        rate = float(column.group.removeprefix(CHANGE))
        if column.group.startswith(CHANGE):
            return f"change of {metric} from 0% to {percent(rate)} of {LOST[lose]}, {pattern}"
        if rate == 0:
            return f"{metric}, nothing lost"
        return f"{metric} without {percent(rate)} of {LOST[lose]}, {pattern}"

    def settings(self) -> dict[str, Any]:
        """Also what is lost."""
        return super().settings() | {"robustness": self.robustness.model_dump(mode="json")}

    def conditions(self) -> list[str]:
        """Also what is lost, how, and what the area is."""
        rates = self.robustness.rates
        patterns = dict.fromkeys(pattern for pattern, _ in self.robustness.curves)
        return [
            *super().conditions(),
            f"{AREA}: area under the metric over missing rates from 0 to 1 ({len(rates)} rates, trapezoids)",
            f"lost when judged, in place of what a system's own setting says of that; draws of seed "
            f"{self.robustness.seed}",
            *(f"{pattern}: {_PATTERNS[pattern]}" for pattern in patterns),
            "who reads nothing that is lost is as it was judged",
        ]

    def curve(self, entry: Entry[RankingRun], kind: str, metric: str) -> list[tuple[float, float, float | None]]:
        """(rate, mean, deviation over seeds) of an entry along a curve."""
        cells = [(rate, self.cell(entry, Column(metric, kind, _told(rate)))) for rate in self.robustness.rates]
        return [(rate, cell.mean, cell.sd) for rate, cell in cells if cell is not None]


def _told(rate: float) -> str:
    """A rate as groups are named by it, each by a name of its own."""
    return f"{rate:.10g}"


def collect(
    dataset: str,
    runs: Sequence[str | Path],
    corrupted: Iterable[str | Path],
    order: Sequence[str],
    evaluation: Evaluation,
    significance: Significance,
    robustness: Robustness,
    bounds: Iterable[str] = (),
) -> RobustnessTable:
    """Read what every run came to at the missing rates, average over seeds, test against the baseline.

    Args:
        runs: paths of metrics.json, evaluation.parquet beside each.
        corrupted: paths of the ranks at missing rates, of those runs that read what is lost.
        order: names `system/recommender` in the order of the rows.
        bounds: systems that know the hidden truth.
    Raises:
        ValueError: no run, an unknown baseline, mixed protocols, or different test users.
        ArtifactError: ranks are of other rates.
    """
    table = _bare(dataset, runs, order, evaluation, significance, robustness, bounds)
    given = {Path(path).parent for path in corrupted}
    tested: dict[str, Values] = {}
    rows, users = [], None
    for entry in table.entries:
        judged, own, users = _entry(entry, table, given, users)
        rows.append(judged)
        tested[entry.name] = own
    table.entries = rows
    candidates = rows if significance.baseline else table.competitors
    table.baselines = baselines_of(candidates, significance.baseline)
    table.average()
    table.mark_best()
    _compare(table, tested, len(users) if users is not None else 0)
    return table


def of_job(runs: Sequence[str | Path], corrupted: Sequence[str | Path], settings: Mapping[str, Any]) -> RobustnessTable:
    """The table of a job, whose settings came as JSON."""
    return collect(
        settings["dataset"], runs, corrupted, settings["order"], Evaluation.model_validate(settings["evaluation"]),
        Significance.model_validate(settings["significance"]), Robustness.model_validate(settings["robustness"]),
        settings["bounds"],
    )  # fmt: skip


def load(path: str | Path, runs: Sequence[str | Path], order: Sequence[str]) -> RobustnessTable:
    """A written table back from its long form; see `ranking.load`."""
    made = describe(path)["settings"]
    table = _bare(
        made["dataset"], runs, order, Evaluation.model_validate(made["evaluation"]),
        Significance.model_validate(made["significance"]), Robustness.model_validate(made["robustness"]),
        made["bounds"],
    )  # fmt: skip
    table.read(path)
    return table


def _bare(
    dataset: str,
    runs: Sequence[str | Path],
    order: Sequence[str],
    evaluation: Evaluation,
    significance: Significance,
    robustness: Robustness,
    bounds: Iterable[str],
) -> RobustnessTable:
    """The rows without their numbers; the oracle reads no item, and is none of them."""
    bare = bare_table(dataset, runs, order, evaluation, significance, bounds, {})
    bare.entries = [entry for entry in bare.entries if not entry.is_oracle]
    return RobustnessTable(**{part.name: getattr(bare, part.name) for part in fields(bare)}, robustness=robustness)


def _entry(
    entry: Entry[RankingRun], table: RobustnessTable, given: set[Path], users: NDArray[np.int32] | None
) -> tuple[Entry[RankingRun], Values, NDArray[np.int32]]:
    """A row with its numbers, and the main metric of every user, averaged over the seeds."""
    runs, totals = [], Values()
    for run in entry.runs:
        own, values = _values(run, table, run.path.parent in given)
        users = own if users is None else users
        same_users(run, own, table.entries[0].runs[0], users)
        groups: dict[str, dict[str, Any]] = {}
        for (kind, group), named in values.items():
            means = {name: float(each.mean()) for name, each in named.items()} if len(own) else {}
            groups.setdefault(kind, {})[group] = {"users": len(own), "metrics": means}
            mean = named[table.main] / len(entry.runs)
            totals[kind, group] = {table.main: totals.get((kind, group), {}).get(table.main, 0.0) + mean}
        runs.append(replace(run, metrics={}, groups=groups))
    assert users is not None
    return replace(entry, runs=tuple(runs)), totals, users


def _values(run: RankingRun, table: RobustnessTable, is_corrupted: bool) -> tuple[NDArray[np.int32], Values]:
    """Metrics of every user that counts at every point, the areas under them, and the falls that are shown."""
    judge, rates = table.evaluation, table.robustness.rates
    values: Values = {}
    if not is_corrupted:
        evaluated, ranks = counted(run, judge)
        users, flat = evaluated.column("user").to_numpy(), metrics.per_user(ranks, judge)
        points = {kind: [flat] * len(rates) for kind in table.kinds}
    else:
        path = run.path.with_name(CORRUPTED)
        written = read_table(path, "corruption")
        points = {}
        users = None
        for kind, (pattern, lose) in table.kinds.items():
            curve = written.filter((pc.field("pattern") == pattern) & (pc.field("lose") == lose))
            parts = [_point(path, curve, rate, judge) for rate in rates]
            users = parts[0][0] if users is None else users
            points[kind] = [named for _, named in parts]
    assert users is not None
    for kind, named_points in points.items():
        for rate, named in zip(rates, named_points, strict=True):
            values[kind, _told(rate)] = named
        names = list(named_points[0])
        values[kind, AREA] = {
            name: np.asarray(np.trapezoid(np.stack([named[name] for named in named_points]), rates, axis=0))
            for name in names
        }
        for rate in table.points:
            values[kind, CHANGE + _told(rate)] = {
                name: values[kind, _told(rate)][name] - named_points[0][name] for name in names
            }
    return users, values


def _point(path: Path, curve: pa.Table, rate: float, judge: Evaluation) -> tuple[NDArray[np.int32], dict[str, Array]]:
    """The users that count, and their metrics, at a rate."""
    part = curve.filter(pc.field("rate") == rate).sort_by("user")
    if not len(part):
        raise ArtifactError(f"{path}: has no ranks at the missing rate {rate:g}; judge the run again at the rates")
    ranks, members = effective_ranks(
        part.column("rank").to_numpy(), part.column("popularity").to_numpy(), judge, repeated(part)
    )
    users: NDArray[np.int32] = part.column("user").to_numpy()[members]
    return users, metrics.per_user(ranks[members].astype(np.float64), judge)


def _compare(table: RobustnessTable, tested: Mapping[str, Values], users: int) -> None:
    """Paired tests over users of what is shown; one Holm family for the table."""
    rivals = table.rivals
    if not rivals or users < 2:
        return
    keys: list[Key] = []
    differences: list[Array] = []
    for entry, base in rivals:
        for column in table.shown:
            own, other = (tested[each.name][column.kind, column.group][column.metric] for each in (entry, base))
            keys.append((entry.name, column))
            differences.append(own - other)
    p = p_values(np.stack(differences, axis=1), table.significance, len(keys))
    table.correct(keys, [float(each.mean()) for each in differences], p.tolist(), table.significance.level)


def by_rate(table: RobustnessTable, metric: str) -> list[Plot]:
    """A plot a curve: the metric over the missing rate, a line a system; a band is a deviation over the seeds wide."""
    plots = []
    for kind, (pattern, lose) in table.kinds.items():
        rows: list[dict[str, Any]] = []
        for entry in table.entries:
            for rate, mean, sd in table.curve(entry, kind, metric):
                spread = f" ± {sd:.4f}" if sd is not None else ""
                says = f"{label(entry)}: {percent(rate)} lost, {metric} {mean:.4f}{spread}"
                low, high = mean - (sd or 0.0), mean + (sd or 0.0)
                rows.append({"run": label(entry), "rate": rate, "value": mean, "low": low, "high": high, "says": says})
        if not rows:
            continue
        names = list(dict.fromkeys(row["run"] for row in rows))
        x = alt.X("rate:Q", title=f"missing rate of {LOST[lose]}, {pattern}", axis=alt.Axis(format="%"))
        # of one colour each: an encoded colour would take that of the lines from the legend
        shades = zip(names, colours(names, ["oracle"]).range, strict=True)
        bands = [_band([row for row in rows if row["run"] == name], x, colour) for name, colour in shades]
        chart = alt.layer(*bands, run_lines(rows, x, metric, names)).properties(width=460, height=250)
        described = "; ".join(str(row["says"]) for row in rows)
        title = f"{metric} as {LOST[lose]} go missing at test ({pattern})"
        plots.append(Plot(f"by-missing-rate-{pattern}-{lose}", title, described, render(chart)))
    return plots


def _band(rows: list[dict[str, Any]], x: alt.X, colour: str) -> alt.Chart:
    """From `low` to `high` along x."""
    area = alt.Chart(inline(rows)).mark_area(opacity=0.15, color=colour, aria=False)
    band: alt.Chart = area.encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    return band
