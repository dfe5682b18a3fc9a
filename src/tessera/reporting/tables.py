"""The metric table of a dataset in long form: a row for each system, recommender, metric and group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tessera.artifacts.files import file_digest, write_text
from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError, describe, read_table, write_table
from tessera.evaluation.cold import AMONG_ALL, AMONG_COLD, KIND, SHOWN
from tessera.evaluation.groups import repeat_warning
from tessera.evaluation.significance import enough_resamples, holm, p_values
from tessera.reporting.runs import (
    Entry,
    Run,
    UserMetrics,
    baselines_of,
    best_of,
    check_same_users,
    cold_metrics,
    entries,
    few_users_warning,
    label,
    opponent,
    user_metrics,
)
from tessera.settings.base import did_you_mean
from tessera.settings.evaluation import Evaluation, Significance

Array = NDArray[np.float64]

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("protocol", pa.string()),
        ("system", pa.string()),
        ("recommender", pa.string()),
        ("kind", pa.string()),
        ("group", pa.string()),
        ("metric", pa.string()),
        ("mean", pa.float64()),
        ("sd", pa.float64()),
        ("seeds", pa.int32()),
        ("users", pa.int32()),
        ("best", pa.bool_()),
        ("baseline", pa.bool_()),
        ("difference", pa.float64()),
        ("p", pa.float64()),
        ("p_holm", pa.float64()),
        ("significant", pa.string()),
    ]
)

SMALLER_IS_BETTER = ("gini", "popularity")


@dataclass
class Cell:
    """One number of the table."""

    mean: float
    sd: float | None
    """Over seeds, with n - 1; None for one seed."""
    users: int
    best: bool = False
    difference: float | None = None
    """From the baseline, in the mean over users."""
    p: float | None = None
    p_holm: float | None = None
    significant: str = ""
    """`up` or `down` from the baseline after Holm's correction, else empty."""


@dataclass(frozen=True)
class Column:
    """What a column shows: a metric overall (`kind` empty), or within a group."""

    metric: str
    kind: str = ""
    group: str = ""

    @property
    def name(self) -> str:
        """As it stands in the header, e.g. `NDCG@10` or `tail NDCG@10`."""
        return f"{self.group} {self.metric}" if self.kind else self.metric


@dataclass
class Table:
    """Everything that the files and the page show of one dataset's results."""

    dataset: str
    protocol: str
    evaluation: Evaluation
    significance: Significance
    entries: list[Entry]
    baselines: list[Entry]
    comparisons: int = 0
    cells: dict[tuple[str, Column], Cell] = field(default_factory=dict)

    @property
    def baseline(self) -> Entry | None:
        """The first of the baselines."""
        return self.baselines[0] if self.baselines else None

    @property
    def judged(self) -> Run:
        """The run that tells whom all were judged on: not the oracle's, which may know fewer, if others are there."""
        return self.entries[0].runs[0]

    @property
    def cold_share(self) -> float:
        """Share of the test users whose target has no training interaction."""
        return self.judged.cold_share

    @property
    def cold(self) -> dict[str, dict[str, Any]]:
        """The groups of cold targets, with their numbers and what chance gives; empty where there is none."""
        return self.judged.groups.get(KIND, {})

    @property
    def cold_columns(self) -> list[Column]:
        """The columns of cold targets, where there are enough of them: among all items, and among cold ones."""
        if self.cold.get(AMONG_ALL, {}).get("users", 0) < SHOWN:
            return []
        hit = self.main.replace("NDCG", "Hit")
        return [Column(metric, KIND, group) for group in (AMONG_ALL, AMONG_COLD) for metric in (hit, self.main)]

    @property
    def repeats(self) -> int:
        """Test users whose target stands in their own history."""
        return round(self.judged.repeat_share * self.judged.test_users)

    def warnings(self) -> list[str]:
        """What a reader must know before anything is read from the numbers."""
        found = [few_users_warning(self.judged.users)]
        found.append(repeat_warning(self.repeats, self.judged.test_users, self.evaluation))
        if self.cold_columns:
            users = self.cold[AMONG_ALL]["users"]
            found.append(few_users_warning(users, " with a cold target"))
        return [warning for warning in found if warning]

    def is_baseline(self, entry: Entry) -> bool:
        """Whether others are compared with an entry."""
        return any(entry is baseline for baseline in self.baselines)

    @property
    def main(self) -> str:
        """The metric of the head and tail columns: NDCG@10, or at the last cut-off where 10 is not one."""
        cutoffs = self.evaluation.cutoffs
        return f"NDCG@{10 if 10 in cutoffs else cutoffs[-1]}"

    @property
    def columns(self) -> list[Column]:
        """The columns of the printed tables, those without any value left out."""
        shown = [Column(f"{metric}@{k}") for metric in ("Hit", "NDCG") for k in self.evaluation.cutoffs]
        shown += [Column("MRR"), Column(self.main, "popularity", "head"), Column(self.main, "popularity", "tail")]
        shown += sorted({c for _, c in self.cells if not c.kind and c.metric.startswith("coverage@")}, key=str)
        shown += self.cold_columns
        return [c for c in shown if any((entry.name, c) in self.cells for entry in self.entries)]

    def mean(self, entry: Entry, metric: str) -> float:
        """A metric over all users; minus infinity where the entry lacks it."""
        cell = self.cells.get((entry.name, Column(metric)))
        return cell.mean if cell is not None else float("-inf")

    def header(self, column: Column) -> str:
        """The column's name with the protocol, when that is not the full ranking."""
        return (
            column.name if self.protocol == "full" or column.group == AMONG_COLD else f"{column.name} ({self.protocol})"
        )

    def notes(self) -> list[str]:
        """How the numbers were made: what a reader needs to compare them with others."""
        rule = self.evaluation
        seeds = sorted({run.seed for entry in self.entries for run in entry.runs if len(entry.runs) > 1})
        cold = {"miss": "counted as misses", "drop": "left out", "rank": "ranked as scored"}[rule.cold_targets]
        users, everyone, repeats = self.judged.users, self.judged.test_users, self.repeats
        repeated = {"miss": "counted as misses", "drop": "left out", "unmasked": "nothing masked for them"}
        alike = not rule.mask_seen and rule.repeat_targets != "drop"
        with_seen = rule.candidates.kind == "sampled" and not rule.mask_seen
        target = "the target, the user's own history" if with_seen else "the target"
        ranking = "full catalogue" if self.protocol == "full" else f"{target} and {self.protocol} negatives"
        found = [
            f"{users:,} test users" if users == everyone else f"{users:,} of {everyone:,} test users",
            f"ranked: {ranking}",
            "items of the user's own history masked" if rule.mask_seen else "seen items not masked",
            f"ties: {'middle rank' if rule.ties == 'mean' else 'worst rank'}",
            f"cold targets ({self.cold_share:.1%} of the test users): {cold}",
            f"targets in the user's own history ({repeats:,}, {self.judged.repeat_share:.1%}): "
            + ("ranked like others" if alike else repeated[rule.repeat_targets]),
            f"mean ± sd over the seeds {', '.join(map(str, seeds))}" if seeds else "one seed",
        ]
        found += self._told_of_cold()
        if self.baseline is not None and self.comparisons:
            test = {
                "randomization": "paired randomisation",
                "bootstrap": "paired bootstrap",
                "t_test": "paired t-test",
            }[self.significance.method]
            resamples = enough_resamples(self.significance, self.comparisons)
            one = len(self.baselines) == 1
            against = label(self.baseline) if one else f"{self.baseline.system} under the same recommender"
            drawn = "" if self.significance.method == "t_test" else f", {resamples:,} resamples"
            found.append(
                f"* better (↑) or worse (↓) than {against}: {test} over users{drawn}, "
                f"p ≤ {self.significance.level:g} after Holm's correction of {self.comparisons} comparisons"
            )
        if any(entry.is_oracle for entry in self.entries):
            judged = next(entry for entry in self.entries if entry.is_oracle).runs[0].users
            everyone = max(run.users for entry in self.entries for run in entry.runs)
            part = f", known for {judged:,} of {everyone:,} users" if judged < everyone else ""
            found.append(f"oracle: the process that made the data, a bound rather than a competitor{part}")
        remarks = {f"{entry.system}: {remark}": None for entry in self.entries for remark in entry.remarks}
        return [*found, *(f"WARNING: {warning}" for warning in self.warnings()), *remarks]

    def _told_of_cold(self) -> list[str]:
        """How many cold targets there are, and what an order by chance would give them."""
        if not self.cold_columns:
            return []
        by_chance = []
        for group, where in ((AMONG_ALL, "the whole catalogue"), (AMONG_COLD, "cold items alone")):
            told = self.cold[group]
            given = ", ".join(f"{c.metric} {told['chance'][c.metric]:.4f}" for c in self.cold_columns[:2])
            by_chance.append(f"{given} among {where} ({told['candidates']:,.0f} ranked on average)")
        users = self.cold[AMONG_ALL]["users"]
        return [
            f"cold: the {users:,} users whose target has no training interaction, ranked as scored; chance would give "
            + "; ".join(by_chance)
        ]


def collect(
    dataset: str, runs: Sequence[str | Path], order: Sequence[str], evaluation: Evaluation, significance: Significance
) -> Table:
    """Read the runs of a dataset, average over seeds, test against the baseline and mark the best.

    Args:
        runs: paths of metrics.json, evaluation.parquet beside each.
        order: names `system/recommender` in the order of the rows.
    Raises:
        ValueError: no run, an unknown baseline, mixed protocols, different test users, or none that counts.
    """
    found = entries(runs, order)
    if not found:
        raise ValueError(f"{dataset}: there is no run to put into a table")
    table = Table(
        dataset, found[0].runs[0].protocol, evaluation, significance, found, baselines_of(found, significance.baseline)
    )
    if not table.judged.users:
        raise ValueError(
            f"{dataset}: none of its {table.judged.test_users:,} test users counts: evaluation.repeat_targets: "
            f"{evaluation.repeat_targets} and cold_targets: {evaluation.cold_targets} leave all of them out"
        )
    for warning in table.warnings():
        log.warning("WARNING: %s: %s", dataset, warning)
    for entry in found:
        for column, users in _columns_of(entry).items():
            values = entry.values(column.metric, column.kind, column.group)
            sd = float(values.std(ddof=1)) if len(values) > 1 else None
            table.cells[entry.name, column] = Cell(float(values.mean()), sd, users)
    _mark_best(table)
    _compare(table)
    return table


def _columns_of(entry: Entry) -> dict[Column, int]:
    """Every column that an entry has a value for, and how many users stand behind it."""
    run = entry.runs[0]
    found = {Column(metric): run.users for metric in run.metrics}
    for kind, named in run.groups.items():
        for group, content in named.items():
            found |= {Column(metric, kind, group): content["users"] for metric in content["metrics"]}
    return found


def _mark_best(table: Table) -> None:
    competitors = [entry.name for entry in table.entries if not entry.is_oracle]
    for column in {column for _, column in table.cells}:
        cells = [table.cells[name, column] for name in competitors if (name, column) in table.cells]
        best = best_of([cell.mean for cell in cells], column.metric.startswith(SMALLER_IS_BETTER))
        for cell in cells:
            cell.best = cell.mean == best


def _tested(found: UserMetrics, table: Table) -> dict[Column, Array]:
    """(n,) values a tested column; users outside the column's group hold NaN."""
    columns = {Column(metric): values for metric, values in found.values.items()}
    for group, members in (("head", found.head), ("tail", ~found.head)):
        if members.any():
            columns[Column(table.main, "popularity", group)] = np.where(members, found.values[table.main], np.nan)
    return columns


def _tested_cold(entry: Entry, table: Table) -> dict[Column, Array]:
    """(users with a cold target,) values of the printed columns of cold targets."""
    if not table.cold_columns:
        return {}
    found = cold_metrics(entry, table.evaluation)
    return {column: found[column.group][column.metric] for column in table.cold_columns}


def _compare(table: Table) -> None:
    """Paired tests of every printed per-user column of every entry; one Holm family for the table."""
    rivals = [(entry, base) for entry in table.entries if (base := opponent(entry, table.baselines)) is not None]
    if not rivals:
        return
    bases = {base.name: user_metrics(base, table.evaluation) for base in table.baselines}
    users = min(len(base.users) for base in bases.values())
    if users < 2:
        log.info("%s: %d test user(s), too few for a test of significance", table.dataset, users)
        return
    against = {base.name: _tested(bases[base.name], table) | _tested_cold(base, table) for base in table.baselines}
    differences: dict[tuple[str, Column], Array] = {}
    for entry, base in rivals:
        found = user_metrics(entry, table.evaluation)
        check_same_users(entry, found, base, bases[base.name])
        for column, values in (_tested(found, table) | _tested_cold(entry, table)).items():
            differences[entry.name, column] = values - against[base.name][column]
    keys = list(differences)
    table.comparisons = len(keys)
    p = np.ones(len(keys))
    # columns over the same users share their resamples
    for kind, group in sorted({(c.kind, c.group) for _, c in keys}):
        chosen = [n for n, (_, c) in enumerate(keys) if (c.kind, c.group) == (kind, group)]
        values = np.stack([differences[keys[n]] for n in chosen], axis=1)
        values = values[~np.isnan(values[:, 0])]
        if len(values) > 1:
            p[chosen] = p_values(values, table.significance, len(keys))
    corrected = holm(p)
    for number, key in enumerate(keys):
        cell = table.cells.get(key)
        if cell is None:
            continue
        cell.difference = float(np.nanmean(differences[key]))
        cell.p, cell.p_holm = float(p[number]), float(corrected[number])
        if cell.p_holm <= table.significance.level:
            cell.significant = "up" if cell.difference > 0 else "down"


def long_form(table: Table) -> pa.Table:
    """Every cell as a row, in the order of the entries."""
    by_name = {entry.name: entry for entry in table.entries}
    rows: list[dict[str, Any]] = []
    for (name, column), cell in table.cells.items():
        entry = by_name[name]
        rows.append(
            {
                "dataset": table.dataset,
                "protocol": table.protocol,
                "system": entry.system,
                "recommender": entry.recommender,
                "kind": column.kind,
                "group": column.group,
                "metric": column.metric,
                "seeds": len(entry.runs),
                "baseline": table.is_baseline(entry),
                **vars(cell),
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA)


def load(path: str | Path, runs: Sequence[str | Path], order: Sequence[str]) -> Table:
    """A written table back from its long form: the tests are not made again.

    Args:
        runs: paths of the metrics.json that the table was made from.
        order: names `system/recommender` in the order of the rows.
    Raises:
        ArtifactError: the file is missing, is of another kind, or tells of runs that are not given.
    """
    rows = read_table(path, "metrics").to_pylist()
    settings = describe(path)["settings"]
    found = entries(runs, order)
    by_name = {entry.name: entry for entry in found}
    evaluation = Evaluation.model_validate(settings["evaluation"])
    significance = Significance.model_validate(settings["significance"])
    table = Table(settings["dataset"], found[0].runs[0].protocol, evaluation, significance, found, [])
    for row in rows:
        name = f"{row['system']}/{row['recommender']}"
        if name not in by_name:
            raise ArtifactError(f"{path}: tells of {name}, which is not among the runs{did_you_mean(name, by_name)}")
        if row["baseline"] and not table.is_baseline(by_name[name]):
            table.baselines.append(by_name[name])
        values = {part.name: row[part.name] for part in fields(Cell)}
        table.cells[name, Column(row["metric"], row["kind"], row["group"])] = Cell(**values)
    table.comparisons = sum(cell.p is not None for cell in table.cells.values())
    return table


def write(table: Table, paths: Mapping[str, str | Path]) -> None:
    """Write the table as `parquet` (long form), `csv`, `md` and `tex`."""
    from tessera.reporting import formats

    settings = {
        "dataset": table.dataset,
        "evaluation": table.evaluation.model_dump(mode="json"),
        "significance": table.significance.model_dump(mode="json"),
    }
    inputs = {
        f"{run.name}/seed-{run.seed}": file_digest(run.path.with_name("evaluation.parquet"))
        for entry in table.entries
        for run in entry.runs
    }
    judged = {name: getattr(table.judged, name) for name in ("users", "test_users", "cold_share", "repeat_share")}
    write_table(paths["parquet"], long_form(table), "metrics", settings, inputs, judged=judged)
    write_text(paths["csv"], formats.csv_text(table))
    write_text(paths["md"], formats.markdown(table))
    write_text(paths["tex"], formats.latex(table))
