"""The table of click-through models: a row a model, tested against the baseline, with what each costs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tessera.artifacts.files import file_digest, read_json, write_text
from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.evaluation import clicks
from tessera.evaluation.significance import enough_resamples, holm
from tessera.reporting.formats import escape_latex, escape_markdown
from tessera.reporting.runs import best_of, few_users_warning
from tessera.settings.ctr import CTREvaluation
from tessera.settings.evaluation import Significance

TESTED = ("AUC", "GAUC", "log loss")
ORACLE = "oracle"
_ARROWS = {"up": "↑", "down": "↓"}


@dataclass
class Cell:
    """One number of the table."""

    mean: float
    sd: float | None = None
    """Over seeds, with n - 1; None for one seed."""
    samples: int | None = None
    low: float | None = None
    """Interval by bootstrap over test users, of the mean over seeds."""
    high: float | None = None
    best: bool = False
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None
    significant: str = ""
    """`up` (better) or `down` from the baseline after Holm's correction, else empty."""


Key = tuple[str, str, str]
"""Kind of group, group, metric; the first two empty for all samples, the first `cost` for time and memory."""


@dataclass
class Model:
    """A row: one model over its seeds."""

    name: str
    kind: str
    runs: list[dict[str, Any]]
    """metrics.json of each seed."""
    cells: dict[Key, Cell] = field(default_factory=dict)


@dataclass
class Table:
    """What files and page show of the click-through models on a dataset."""

    dataset: str
    against: str
    settings: CTREvaluation
    models: list[Model]
    comparisons: int = 0

    @property
    def columns(self) -> list[tuple[str, Key]]:
        """Headers and what stands below them; columns that no model fills are left out."""
        found = {key for model in self.models for key in model.cells}
        lengths = {group for kind, group, metric in found if (kind, metric) == ("history", "AUC")} - {"empty"}
        last = max(lengths, key=lambda name: int(name.lstrip(">").split("-")[0]), default="")
        wanted: list[tuple[str, Key]] = [(metric, ("", "", metric)) for metric in clicks.METRICS]
        wanted += [(f"{name} AUC", ("popularity", name, "AUC")) for name in ("head", "tail")]
        wanted += [(f"history {last} AUC", ("history", last, "AUC"))]
        wanted += [("recall", ("cost", "", "recall")), ("p50 ms", ("cost", "", "p50_ms"))]
        wanted += [("p99 ms", ("cost", "", "p99_ms")), ("parameters", ("cost", "", "parameters"))]
        return [(head, key) for head, key in wanted if key in found]

    def notes(self) -> list[str]:
        """What has to be said beside the numbers."""
        first = self.models[0].runs[0]
        seeds = max(len(model.runs) for model in self.models)
        latency = next((run["latency"] for model in self.models for run in model.runs if "latency" in run), None)
        found = [
            f"{first['samples']:,} test impressions of {first['users']:,} users, {first['clicks']:.1%} clicked",
            f"{seeds} seed{'s' if seeds > 1 else ''}" + (", mean ± standard deviation" if seeds > 1 else ""),
            f"*↑ better, *↓ worse than {self.against}: paired bootstrap over users, {self.comparisons} comparisons, "
            f"Holm-corrected, level {self.settings.level:g}",
            "GAUC: users' own AUCs, weighted by their impressions",
        ]
        if any(("cost", "", "recall") in model.cells for model in self.models):
            found.append("recall: share of the events that weigh most in full target attention which retrieval found")
        if latency is not None:
            found.append(
                f"p50 and p99: milliseconds of a request of {latency['candidates']} candidates after "
                f"{latency['mean_history']:,.0f} events on the machine of the run"
            )
        if any(model.name == ORACLE for model in self.models):
            found.append("oracle: the true chance of a click, a bound")
        if warning := few_users_warning(first["users"]):
            found.append(f"WARNING: {warning}")
        return found


def collect(dataset: str, metric_files: Sequence[Path], against: str, settings: CTREvaluation) -> Table:
    """The table from `metrics.json` and `predictions.parquet` of every run.

    Raises:
        ArtifactError: two runs predict different samples, or the baseline has no run.
    """
    models: dict[str, Model] = {}
    paths: dict[str, list[Path]] = {}
    for file in metric_files:
        run = read_json(file)
        models.setdefault(run["model"], Model(run["model"], run["kind"], [])).runs.append(run)
        paths.setdefault(run["model"], []).append(file.with_name("predictions.parquet"))
    if against not in models:
        raise ArtifactError(f"ctr.baseline: {against!r} has no run on {dataset!r}, which has {sorted(models)}")
    table = Table(dataset, against, settings, list(models.values()))
    for model in table.models:
        _fill(model)
    _test(table, paths)
    _mark_best(table)
    if warning := few_users_warning(table.models[0].runs[0]["users"]):
        log.warning("WARNING: %s: %s", dataset, warning)
    return table


def _fill(model: Model) -> None:
    """Means over seeds of everything that metrics.json says."""
    found: dict[Key, list[float]] = {}
    samples: dict[Key, int] = {}
    for run in model.runs:
        parts = [("", "", run)] + [
            (kind, name, told) for kind, named in run["groups"].items() for name, told in named.items()
        ]
        for kind, name, told in parts:
            for metric, value in told["metrics"].items():
                if value is not None:
                    found.setdefault((kind, name, metric), []).append(value)
                    samples[kind, name, metric] = told["samples"]
        costs = {name: run.get(name) for name in ("parameters", "bytes", "samples_per_second")}
        costs |= {name: run.get("latency", {}).get(name) for name in ("p50_ms", "p99_ms")}
        costs |= {name: run.get("retrieval", {}).get(name) for name in ("recall", "weight", "selected")}
        for metric, value in costs.items():
            if value is not None:
                found.setdefault(("cost", "", metric), []).append(float(value))
    for key, values in found.items():
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        model.cells[key] = Cell(float(np.mean(values)), sd, samples.get(key))


def _test(table: Table, paths: Mapping[str, list[Path]]) -> None:
    """Intervals of every model, and paired tests against the baseline, from the same resamples of users."""
    settings = table.settings
    others = [model for model in table.models if model.name not in (table.against, ORACLE)]
    table.comparisons = len(others) * len(TESTED)
    # the seed of the resamples is the same for all, so that they draw the same users
    wanted = Significance(resamples=settings.resamples, level=settings.level)
    resamples = enough_resamples(wanted, max(1, table.comparisons))
    draws: dict[str, dict[str, np.ndarray]] = {}
    first: pa.Table | None = None
    for model in table.models:
        seeds = []
        for path in paths[model.name]:
            told = read_table(path, "ctr_predictions")
            first = told if first is None else first
            if not told.select(["user", "item", "label"]).equals(first.select(["user", "item", "label"])):
                raise ArtifactError(f"{path}: predicts other samples than {paths[table.models[0].name][0]}")
            users, labels, found = (told.column(name).to_numpy() for name in ("user", "label", "probability"))
            seeds.append(clicks.resampled(users, labels, found, resamples, settings.seed))
        draws[model.name] = {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in TESTED}
        for metric in TESTED:
            bounds = clicks.interval(draws[model.name][metric], settings.level)
            if bounds is not None and ("", "", metric) in model.cells:
                model.cells["", "", metric].low, model.cells["", "", metric].high = bounds
    base = next(model for model in table.models if model.name == table.against)
    tested: list[tuple[Cell, str]] = []
    for model in others:
        for metric in TESTED:
            cell, other = (one.cells.get(("", "", metric)) for one in (model, base))
            if cell is None or other is None:
                continue
            cell.difference = cell.mean - other.mean
            cell.p = clicks.paired_p(draws[model.name][metric] - draws[base.name][metric], cell.difference)
            tested.append((cell, metric))
    corrected = holm(np.array([cell.p for cell, _ in tested], np.float64))
    for (cell, metric), p in zip(tested, corrected, strict=True):
        cell.p_holm = float(p)
        if p <= settings.level and cell.difference:
            better = (cell.difference < 0) == (metric in clicks.SMALLER_IS_BETTER)
            cell.significant = "up" if better else "down"


def _mark_best(table: Table) -> None:
    for _, key in table.columns:
        cells = [m.cells[key] for m in table.models if key in m.cells and m.name != ORACLE]
        smaller = key[2] in clicks.SMALLER_IS_BETTER or key[2] in ("p50_ms", "p99_ms", "parameters")
        best = best_of([cell.mean for cell in cells], smaller)
        for cell in cells:
            cell.best = cell.mean == best


def shown(key: Key, value: float) -> str:
    """A number as tables print it."""
    if key[2] == "parameters":
        return f"{value:,.0f}"
    return f"{value:.2f}" if key[2].endswith("_ms") else f"{value:.4f}"


def write(table: Table, outputs: Mapping[str, Path]) -> None:
    """Write `parquet`, `csv`, `md` and `tex`."""
    write_text(outputs["md"], markdown(table))
    write_text(outputs["csv"], csv_text(table))
    write_text(outputs["tex"], latex(table))
    rows = [
        {
            "dataset": table.dataset, "model": model.name, "model_kind": model.kind, "kind": kind, "group": group,
            "metric": metric, "mean": cell.mean, "sd": cell.sd, "low": cell.low, "high": cell.high,
            "seeds": len(model.runs), "samples": cell.samples, "best": cell.best,
            "baseline": model.name == table.against, "difference": cell.difference, "p": cell.p,
            "p_holm": cell.p_holm, "significant": cell.significant,
        }
        for model in table.models
        for (kind, group, metric), cell in model.cells.items()
    ]  # fmt: skip
    settings = {"evaluation": table.settings.model_dump(mode="json"), "against": table.against}
    write_table(outputs["parquet"], pa.Table.from_pylist(rows), "metrics", settings, {"md": file_digest(outputs["md"])})


def _text(key: Key, cell: Cell | None) -> str:
    if cell is None:
        return ""
    text = f"**{shown(key, cell.mean)}**" if cell.best else shown(key, cell.mean)
    text += f" ± {shown(key, cell.sd)}" if cell.sd is not None and key[0] != "cost" else ""
    return f"{text} \\*{_ARROWS[cell.significant]}" if cell.significant else text


def markdown(table: Table) -> str:
    """A table for GitHub: best in bold, intervals of AUC, stars against the baseline, the notes under it."""
    columns = table.columns
    lines = [
        f"### {escape_markdown(table.dataset)}: click-through rate",
        "",
        "| model | AUC interval | " + " | ".join(escape_markdown(head) for head, _ in columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for model in table.models:
        auc = model.cells.get(("", "", "AUC"))
        interval = f"{auc.low:.4f} to {auc.high:.4f}" if auc and auc.low is not None and auc.high is not None else ""
        cells = [_text(key, model.cells.get(key)) for _, key in columns]
        lines.append("| " + " | ".join([escape_markdown(model.name), interval, *cells]) + " |")
    return "\n".join([*lines, "", "; ".join(map(escape_markdown, table.notes())) + ".", ""])


def csv_text(table: Table) -> str:
    """A row a model: mean, sd and corrected p of every printed column; empty where not known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [f"{head}{part}" for head, _ in table.columns for part in ("", " sd", " p")]
    writer.writerow(["model", "kind", "seeds", *heads])
    for model in table.models:
        row: list[str | int] = [model.name, model.kind, len(model.runs)]
        for _, key in table.columns:
            cell = model.cells.get(key)
            values = (cell.mean, cell.sd, cell.p_holm) if cell else (None, None, None)
            row += ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow(row)
    return out.getvalue()


def latex(table: Table) -> str:
    """A booktabs table, ready for \\input."""
    columns = table.columns
    lines = [
        r"% needs \usepackage{booktabs}, and graphicx for \resizebox",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(table.dataset)}: click-through rate. {escape_latex('; '.join(table.notes()))}.}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["Model", *(escape_latex(head) for head, _ in columns)]) + r" \\",
        r"\midrule",
    ]
    for model in table.models:
        cells = []
        for _, key in columns:
            cell = model.cells.get(key)
            text = "--" if cell is None else escape_latex(shown(key, cell.mean))
            text = rf"\textbf{{{text}}}" if cell is not None and cell.best else text
            arrow = {"up": r"\uparrow", "down": r"\downarrow"}.get(cell.significant) if cell is not None else None
            cells.append(f"{text}$^{{*{arrow}}}$" if arrow else text)
        lines.append(" & ".join([escape_latex(model.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])
