"""The metric table of click-through models: accuracy by bootstrap over users, and what each model costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError, describe, read_table
from tessera.evaluation import clicks
from tessera.evaluation.calibration import METHODS
from tessera.evaluation.significance import enough_resamples, holm
from tessera.reporting.runs import Entry, Run, baselines_of, grouped, read_metrics
from tessera.reporting.tables import Column, Metric, Table
from tessera.settings.ctr import CTREvaluation
from tessera.settings.evaluation import Significance

MAIN = "AUC"
"""The metric that decides."""
TESTED = ("AUC", "GAUC", "log loss")
_NEEDED = ("model", "kind", "seed", "samples", "users", "clicks", "metrics", "groups", "calibration")
_COSTS = {
    "": ("parameters", "bytes", "samples_per_second"),
    "latency": ("p50_ms", "p99_ms"),
    "retrieval": ("recall", "weight", "selected"),
}
"""Part of metrics.json (empty: itself) -> what it tells of time, memory and retrieval."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ClickRun(Run):
    """One seed of a click-through model."""

    kind: str
    samples: int
    """Test impressions."""
    clicks: float
    """Share of them that were clicked."""
    calibration: list[tuple[float, float, int]]
    """Mean prediction, share of clicks and impressions of each bin."""
    latency: dict[str, float]
    """Of a request; empty where none was measured."""

    JUDGED = "predictions.parquet"

    def judged_on(self) -> dict[str, Any]:
        """Counts and shares of what it was judged on."""
        return {name: getattr(self, name) for name in ("users", "samples", "clicks")}

    def predictions(self) -> pa.Table:
        """One row an impression, in the order of the samples."""
        return read_table(self.path.with_name(self.JUDGED), "ctr_predictions")


def read_run(path: str | Path) -> ClickRun:
    """Read one metrics.json; costs become the group `cost`, and what calibration makes of the numbers `calibrated`.

    Raises:
        ArtifactError: there is none, or it lacks a key.
    """
    content = read_metrics(path, _NEEDED)
    parts = {name: content.get(name) or {} if name else content for name in _COSTS}
    costs = {key: parts[name].get(key) for name, keys in _COSTS.items() for key in keys}
    return ClickRun(
        path=Path(path),
        system=content["model"],
        **{key: content[key] for key in _NEEDED if key not in ("model", "groups")},
        groups={**content["groups"], "calibrated": content.get("calibrated") or {}, "cost": {"": {"metrics": costs}}},
        latency=content.get("latency") or {},
        remarks=tuple(content.get("remarks", ())),
    )


@dataclass(frozen=True)
class Pairs:
    """Every pair of competitors, from the resamples of the table; kept, since drawing them takes long."""

    names: list[str]
    """Of the competitors that have the main metric."""
    p: list[list[float]]
    """(names, names) of the main metric, corrected over all pairs."""
    least: float
    """The least of them that the resamples can tell."""
    intervals: dict[str, list[list[list[float] | None]]]
    """Metric -> (names, names) ends of the interval of the first less the second; None where it is not known."""


@dataclass(kw_only=True)
class ClickTable(Table[ClickRun]):
    """The results of click-through models."""

    evaluation: CTREvaluation
    pairs: Pairs | None = None
    """None where there is none, and in tables that were written without."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("AUC"),
        Metric("GAUC"),
        Metric("log loss", better="smaller"),
        Metric("ECE", better="smaller"),
        Metric("recall", spread=False),
        Metric("weight", spread=False),
        Metric("selected", better="neither", spread=False),
        Metric("p50_ms", better="smaller", digits=2, title="p50 ms", spread=False),
        Metric("p99_ms", better="smaller", digits=2, title="p99 ms", spread=False),
        Metric("parameters", better="smaller", digits=0, spread=False),
        Metric("bytes", better="smaller", digits=0, spread=False),
        Metric("samples_per_second", digits=1, spread=False),
    )
    COUNTED: ClassVar[str] = "samples"
    ROW: ClassVar[str] = "model"
    COMPETES: ClassVar[str] = "model"
    TRAINED_BY: ClassVar[str] = "train_ctr"
    INTERVALS: ClassVar[bool] = True

    @property
    def columns(self) -> list[Column]:
        """Metrics of all impressions, AUC of head, tail and the longest histories, costs, metrics after calibration."""
        lengths = {column.group for _, column in self.cells if (column.kind, column.metric) == ("history", "AUC")}
        last = max(lengths - {"empty"}, key=lambda name: int(name.lstrip(">").split("-")[0]), default="")
        shown = [Column(metric) for metric in clicks.METRICS]
        shown += [
            Column("AUC", "popularity", "head"),
            Column("AUC", "popularity", "tail"),
            Column("AUC", "history", last),
        ]
        shown += [Column(metric, "cost") for metric in ("recall", "p50_ms", "p99_ms", "parameters")]
        return self.filled([*shown, *self.apart])

    @property
    def apart(self) -> list[Column]:
        """Log loss and calibration error after each calibration, which the page shows in a table of their own."""
        ways = [Column(metric, "calibrated", method) for metric in ("log loss", "ECE") for method in METHODS]
        return self.filled(ways)

    @property
    def calibrated(self) -> list[Column]:
        """Log loss and calibration error as models predict, and after each calibration; empty where there is none."""
        if not self.apart:
            return []
        return self.filled([c for m in ("log loss", "ECE") for c in (Column(m), *self.apart) if c.metric == m])

    @property
    def title(self) -> str:
        """The dataset and the task."""
        return f"{self.dataset}: click-through rate"

    def identity(self, entry: Entry[ClickRun]) -> dict[str, str]:
        """The model and its kind."""
        return {"model": entry.system, "model_kind": entry.runs[0].kind}

    def labels(self, entry: Entry[ClickRun]) -> dict[str, str]:
        """The model and the interval of its AUC."""
        auc = Column("AUC")
        return {"model": entry.system, "AUC interval": self.interval(auc, self.cell(entry, auc))}

    def least_p(self) -> float:
        """See `Table.least_p`."""
        most = max(1, len(self.rivals) * len(TESTED))
        return min(1.0, self.comparisons / (1 + enough_resamples(significance(self.evaluation), most)))

    def settings(self) -> dict[str, Any]:
        """Of judge and tests."""
        against = self.baseline.system if self.baseline is not None else None
        evaluation = self.evaluation.model_dump(mode="json")
        return {"evaluation": evaluation, "against": against, "bounds": sorted(self.bounds)}

    def kept(self) -> dict[str, Any]:
        """The pairs."""
        return {"pairs": asdict(self.pairs)} if self.pairs is not None else {}

    def conditions(self) -> list[str]:
        """Impressions, seeds, tests, and what the columns mean."""
        run = self.judged
        latency = next((one.latency for entry in self.entries for one in entry.runs if one.latency), None)
        conditions = [
            f"{run.samples:,} test impressions of {run.users:,} users, {run.clicks:.1%} clicked",
            self.told_seeds(),
        ]
        if self.baseline is not None:
            conditions.append(
                f"*↑ better, *↓ worse than {self.baseline.system}: paired bootstrap over users, {self.comparisons} "
                f"comparisons, Holm-corrected, level {self.evaluation.level:g}"
            )
        conditions.append("GAUC: users' own AUCs, weighted by their impressions")
        if self.filled([Column("recall", "cost")]):
            meaning = "recall: share of the events that weigh most in full target attention which retrieval found"
            conditions.append(meaning)
        if latency is not None:
            conditions.append(
                f"p50 and p99: milliseconds of a request of {latency['candidates']} candidates after "
                f"{latency['mean_history']:,.0f} events on the machine of the run"
            )
        if self.apart:
            conditions.append("Platt, isotonic: of probabilities put right by validation impressions alone")
        if any(entry.is_oracle for entry in self.entries):
            conditions.append("oracle: the true chance of a click, a bound")
        return conditions


def significance(evaluation: CTREvaluation) -> Significance:
    """The tests of click models."""
    return Significance(
        method="bootstrap", resamples=evaluation.resamples, level=evaluation.level, seed=evaluation.seed
    )


def bare(
    dataset: str, metric_files: Sequence[str | Path], evaluation: CTREvaluation, bounds: Iterable[str] = ()
) -> ClickTable:
    """The rows without their numbers, in the order of the files."""
    runs = [read_run(path) for path in metric_files]
    if not runs:
        raise ValueError(f"{dataset}: there is no run to put into a table")
    rows = grouped(runs, list(dict.fromkeys(run.name for run in runs)))
    return ClickTable(dataset, rows, [], bounds=frozenset(bounds), evaluation=evaluation)


def collect(
    dataset: str,
    metric_files: Sequence[str | Path],
    against: str,
    evaluation: CTREvaluation,
    bounds: Iterable[str] = (),
) -> ClickTable:
    """Read the runs of a dataset, average over seeds, test against the baseline and mark the best.

    Args:
        metric_files: paths of metrics.json, predictions.parquet beside each.
        against: the baseline.
        bounds: models that know the hidden truth, besides the oracle.
    Raises:
        ValueError: no run, or the baseline has none.
        ArtifactError: two runs predict different samples.
    """
    table = bare(dataset, metric_files, evaluation, bounds)
    table.baselines = baselines_of(table.entries, against, "ctr.baseline")
    for warning in table.warnings():
        log.warning("%s: %s", dataset, warning)
    table.average()
    _compare(table)
    table.mark_best()
    return table


def of_job(runs: Sequence[str | Path], settings: Mapping[str, Any]) -> ClickTable:
    """The table of a job, whose settings came as JSON."""
    evaluation = CTREvaluation.model_validate(settings["evaluation"])
    return collect(settings["dataset"], runs, settings["against"], evaluation, settings["bounds"])


def load(path: str | Path, metric_files: Sequence[str | Path]) -> ClickTable:
    """A written table back from its long form: the tests are not made again.

    Raises:
        ArtifactError: the file is missing, is of another kind, or tells of runs that are not given.
    """
    made = describe(path)
    settings = made["settings"]
    evaluation = CTREvaluation.model_validate(settings["evaluation"])
    table = bare(settings["dataset"], metric_files, evaluation, settings["bounds"])
    table.read(path)
    table.pairs = Pairs(**made["pairs"]) if "pairs" in made else None
    return table


def resampled(
    table: ClickTable, resamples: int, entries: Sequence[Entry[ClickRun]]
) -> dict[str, dict[str, np.ndarray]]:
    """Row -> metric -> (resamples,) mean over its seeds; all rows draw the same users.

    Raises:
        ArtifactError: two runs predict different samples.
    """
    first = table.judged
    samples = first.predictions().select(["user", "item", "label"])
    draws: dict[str, dict[str, np.ndarray]] = {}
    for entry in entries:
        seeds = []
        for run in entry.runs:
            predictions = run.predictions()
            if not predictions.select(["user", "item", "label"]).equals(samples):
                other = first.path.with_name(first.JUDGED)
                raise ArtifactError(f"{run.path.with_name(run.JUDGED)}: predicts other samples than {other}")
            users, labels, predicted = (predictions[name].to_numpy() for name in ("user", "label", "probability"))
            seeds.append(clicks.resampled(users, labels, predicted, resamples, table.evaluation.seed))
        draws[entry.name] = {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in TESTED}
    return draws


def _pairs(
    table: ClickTable,
    competing: Sequence[Entry[ClickRun]],
    pairs: Sequence[tuple[int, int]],
    draws: Mapping[str, Mapping[str, np.ndarray]],
    resamples: int,
) -> Pairs | None:
    """Every pair of competitors on the first of the resamples."""
    if not competing:
        return None
    count = len(competing)
    p = np.ones((count, count))
    intervals: dict[str, list[list[list[float] | None]]] = {m: [[None] * count for _ in competing] for m in TESTED}
    tested = []
    for one, other in pairs:
        first, second = competing[one], competing[other]
        for metric in TESTED:
            drawn = (draws[first.name][metric] - draws[second.name][metric])[:resamples]
            if metric == MAIN:
                tested.append(clicks.paired_p(drawn, table.mean(first, metric) - table.mean(second, metric)))
            if ends := clicks.interval(drawn, table.evaluation.level):
                intervals[metric][one][other], intervals[metric][other][one] = [*ends], [-ends[1], -ends[0]]
    if pairs:
        first_places, second_places = zip(*pairs, strict=True)
        p[first_places, second_places] = p[second_places, first_places] = holm(np.array(tested))
    least = min(1.0, len(pairs) / (1 + resamples))
    return Pairs([entry.name for entry in competing], p.tolist(), least, intervals)


def _compare(table: ClickTable) -> None:
    """Intervals of every model, and paired tests against the baseline, from the same resamples of users."""
    rivals, evaluation = table.rivals, table.evaluation
    most = max(1, len(rivals) * len(TESTED))
    own = enough_resamples(significance(evaluation), most)
    competing = [entry for entry in table.competitors if table.cell(entry, Column(MAIN)) is not None]
    pairs = list(combinations(range(len(competing)), 2))
    of_pairs = enough_resamples(significance(evaluation), max(1, len(pairs)))
    # the first resamples are the same, however many follow
    every = resampled(table, max(own, of_pairs), table.entries)
    draws = {name: {metric: drawn[:own] for metric, drawn in by.items()} for name, by in every.items()}
    table.pairs = _pairs(table, competing, pairs, every, of_pairs)
    for entry in table.entries:
        for metric in TESTED:
            cell, bounds = (
                table.cell(entry, Column(metric)),
                clicks.interval(draws[entry.name][metric], evaluation.level),
            )
            if cell is not None and bounds is not None:
                cell.low, cell.high = bounds
    tested = [(entry, base, metric) for entry, base in rivals for metric in TESTED
              if table.cell(entry, Column(metric)) and table.cell(base, Column(metric))]  # fmt: skip
    differences = [table.mean(entry, metric) - table.mean(base, metric) for entry, base, metric in tested]
    p = [
        clicks.paired_p(draws[entry.name][metric] - draws[base.name][metric], difference)
        for (entry, base, metric), difference in zip(tested, differences, strict=True)
    ]
    table.correct([(entry.name, Column(metric)) for entry, _, metric in tested], differences, p, evaluation.level)
