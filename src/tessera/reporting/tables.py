"""The kit of metric tables, whatever the task: metrics, columns and cells; how they are averaged, tested and marked.

A task brings a `Run` (`runs.py`) and a `Table`: which metrics it has, which columns are printed, what stands beside
them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import pyarrow as pa

from tessera.artifacts.tables import ArtifactError, read_table
from tessera.evaluation.significance import holm, told_p
from tessera.reporting.runs import Entry, Run, best_of, few_users_warning, label, opponent
from tessera.settings.base import did_you_mean

R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class Metric:
    """A kind of number."""

    name: str
    """Without its cut-off."""
    better: Literal["larger", "smaller", "neither"] = "larger"
    digits: int = 4
    """Decimals that are printed."""
    title: str = ""
    """In headers, where it is not the name."""
    spread: bool = True
    """Whether the deviation over seeds is printed."""


@dataclass(frozen=True)
class Column:
    """What a column shows: a metric overall (`kind` empty), or within a group."""

    metric: str
    kind: str = ""
    group: str = ""


@dataclass
class Cell:
    """One number of the table."""

    mean: float
    sd: float | None = None
    """Over seeds, with n - 1; None for one seed."""
    count: int | None = None
    """Test users or impressions behind it; None of costs."""
    low: float | None = None
    """Interval over test users, where the task has one."""
    high: float | None = None
    best: bool = False
    difference: float | None = None
    """From the baseline."""
    p: float | None = None
    p_holm: float | None = None
    significant: str = ""
    """`up` (better) or `down` from the baseline after Holm's correction, else empty."""


Key = tuple[str, Column]
"""The name of a row, and a column."""


@dataclass
class Table(ABC, Generic[R]):
    """Everything that the files and the page show of one dataset's results."""

    dataset: str
    entries: list[Entry[R]]
    """The rows."""
    baselines: list[Entry[R]]
    comparisons: int = 0
    """Tests in the family that was corrected."""
    cells: dict[Key, Cell] = field(default_factory=dict)
    bounds: frozenset[str] = frozenset()
    """Systems that know what only the maker of a generated world knows."""

    METRICS: ClassVar[tuple[Metric, ...]] = ()
    COUNTED: ClassVar[str] = "users"
    """What a cell counts."""
    ROW: ClassVar[str] = "run"
    """What a row is."""
    COMPETES: ClassVar[str] = "system"
    """What competes in it."""
    TRAINED_BY: ClassVar[str] = "train"
    """The rule whose benchmark files tell the cost of training."""
    INTERVALS: ClassVar[bool] = False
    """Whether cells may have intervals."""

    # ------------------------------------------------------------ what a task says

    @property
    @abstractmethod
    def columns(self) -> list[Column]:
        """The columns of the printed tables, those without any value left out."""

    @property
    def apart(self) -> list[Column]:
        """Those of the columns that the page shows in a table of their own."""
        return []

    def leading(self, main: str) -> list[Column]:
        """The columns that a page shows first: those of the metric that decides, then a few more."""
        own = [column for column in self.columns if column.metric == main]
        others = [column for column in self.columns if column.metric != main and column not in self.apart]
        return [*sorted(own, key=lambda column: bool(column.kind)), *others][: max(6, len(own))]

    @abstractmethod
    def conditions(self) -> list[str]:
        """How the numbers were made: what a reader needs to compare them with others."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the table was made with."""

    @abstractmethod
    def identity(self, entry: Entry[R]) -> dict[str, str]:
        """What tells a row from others in the files of numbers: header -> name."""

    def labels(self, entry: Entry[R]) -> dict[str, str]:
        """What stands before the numbers of a row in the printed tables: header -> text."""
        return self.identity(entry)

    def shared(self) -> dict[str, str]:
        """Columns of the long form that are the same in all rows, besides the dataset."""
        return {}

    def facts(self, entry: Entry[R]) -> dict[str, str | int]:
        """What else the CSV file tells of a row."""
        return {}

    @property
    def title(self) -> str:
        """What stands over the table."""
        return self.dataset

    def warnings(self) -> list[str]:
        """What a reader must know before anything is read from the numbers."""
        warning = few_users_warning(self.judged.users)
        return [warning] if warning else []

    # ------------------------------------------------------------ what all tables share

    @property
    def baseline(self) -> Entry[R] | None:
        """The first of the baselines."""
        return self.baselines[0] if self.baselines else None

    def is_baseline(self, entry: Entry[R]) -> bool:
        """Whether others are compared with an entry."""
        return any(entry is baseline for baseline in self.baselines)

    def is_bound(self, entry: Entry[R]) -> bool:
        """Whether an entry knows the hidden truth: a bound, which no system has to reach, and never the best."""
        return entry.is_oracle or entry.system in self.bounds

    @property
    def competitors(self) -> list[Entry[R]]:
        """The entries that are no bounds."""
        return [entry for entry in self.entries if not self.is_bound(entry)]

    def ranked(self, metric: str) -> list[Entry[R]]:
        """The competitors from best to worst by a metric, then the bounds alike; those without it last of each."""
        sign = 1.0 if self.metric(Column(metric)).better == "smaller" else -1.0
        cells = {entry.name: self.cell(entry, Column(metric)) for entry in self.entries}
        worth = {name: sign * cell.mean if cell else float("inf") for name, cell in cells.items()}
        return sorted(self.entries, key=lambda entry: (self.is_bound(entry), worth[entry.name]))

    @property
    def rivals(self) -> list[tuple[Entry[R], Entry[R]]]:
        """Every entry that is tested, with the baseline that it meets."""
        return [(entry, base) for entry in self.entries if (base := opponent(entry, self.baselines)) is not None]

    @property
    def judged(self) -> R:
        """The run that tells whom all were judged on: not the oracle's, which may know fewer, if others are there."""
        return self.entries[0].runs[0]

    def metric(self, column: Column) -> Metric:
        """The metric of a column."""
        name = column.metric.partition("@")[0]
        return next((metric for metric in self.METRICS if metric.name == name), Metric(name))

    def header(self, column: Column) -> str:
        """What stands over a column, e.g. `NDCG@10`, `tail NDCG@10` or `history >50 AUC`."""
        group = f"history {column.group}" if column.kind == "history" else column.group
        return f"{group} {self.metric(column).title or column.metric}".strip()

    def text(self, column: Column, value: float) -> str:
        """A number of a column as it is printed."""
        return f"{value:,.{self.metric(column).digits}f}"

    def spread(self, column: Column, cell: Cell) -> str:
        """The deviation over seeds as it is printed; empty where it is not."""
        return self.text(column, cell.sd) if cell.sd is not None and self.metric(column).spread else ""

    def interval(self, column: Column, cell: Cell | None) -> str:
        """The interval as it is printed; empty where there is none."""
        if cell is None or cell.low is None or cell.high is None:
            return ""
        return f"{self.text(column, cell.low)} to {self.text(column, cell.high)}"

    def cell(self, entry: Entry[R], column: Column) -> Cell | None:
        """The cell of a row in a column; None where there is no such number."""
        return self.cells.get((entry.name, column))

    def mean(self, entry: Entry[R], metric: str) -> float:
        """A metric overall; minus infinity where the entry lacks it."""
        cell = self.cell(entry, Column(metric))
        return cell.mean if cell is not None else float("-inf")

    def least_p(self) -> float:
        """The least corrected p that the tests of this table can tell; 0 where they are exact."""
        return 0.0

    def told_p(self, cell: Cell) -> str:
        """The corrected p of a cell as it is printed."""
        return told_p(cell.p_holm, self.least_p()) if cell.p_holm is not None else ""

    def told_seeds(self) -> str:
        """What means are taken over: the seeds of most rows, and of which rows they are others."""
        rows: dict[tuple[int, ...], list[str]] = {}
        for entry in self.entries:
            # what is only counted has one; a file of another program may be given for each of several
            if len(entry.runs) > 1 or not (entry.is_oracle or entry.is_heuristic):
                rows.setdefault(tuple(sorted(run.seed for run in entry.runs)), []).append(label(entry))
        if not rows:
            return "no seeds: nothing was trained"
        if all(len(seeds) == 1 for seeds in rows):
            return "one seed"
        most, *others = sorted(rows, key=lambda seeds: (len(seeds) == 1, -len(rows[seeds])))
        apart = "; ".join(
            f"{', '.join(rows[seeds])}: seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            for seeds in others
        )
        return f"mean ± sd over the seeds {', '.join(map(str, most))}" + (f" ({apart})" if apart else "")

    def filled(self, columns: Iterable[Column]) -> list[Column]:
        """Those of the columns that some row has a number in."""
        known = {column for _, column in self.cells}
        return [column for column in columns if column in known]

    def notes(self) -> list[str]:
        """Conditions, bounds, warnings and remarks, as they stand under the table."""
        knowing = dict.fromkeys(entry.system for entry in self.entries if self.is_bound(entry) and not entry.is_oracle)
        names = ", ".join(knowing)
        bounds = [f"{names}: made of the hidden truth, a bound rather than a competitor"] if names else []
        remarks = {f"{entry.system}: {remark}": None for entry in self.entries for remark in entry.remarks}
        return [*self.conditions(), *bounds, *(f"WARNING: {warning}" for warning in self.warnings()), *remarks]

    # ------------------------------------------------------------ how cells are made

    def average(self) -> None:
        """Means and deviations over the seeds of every row."""
        for entry in self.entries:
            for column, count in entry.columns(self.COUNTED).items():
                values = entry.values(*column)
                sd = float(values.std(ddof=1)) if len(values) > 1 else None
                self.cells[entry.name, Column(*column)] = Cell(self.over_seeds(entry, Column(*column)), sd, count)

    def over_seeds(self, entry: Entry[R], column: Column) -> float:
        """The number of a row in a column that some of its seeds have a value for: the mean of these."""
        return float(entry.values(column.metric, column.kind, column.group).mean())

    def mark_best(self) -> None:
        """Mark the best of every column among the competitors."""
        competitors = [entry.name for entry in self.competitors]
        for column in {column for _, column in self.cells}:
            better = self.metric(column).better
            if better == "neither":
                continue
            cells = [self.cells[name, column] for name in competitors if (name, column) in self.cells]
            best = best_of([cell.mean for cell in cells], better == "smaller")
            for cell in cells:
                cell.best = cell.mean == best

    def correct(self, keys: Sequence[Key], differences: Sequence[float], p: Sequence[float], level: float) -> None:
        """Holm's correction over all tests of the table as one family; what is then within the level is marked."""
        self.comparisons = len(keys)
        corrected = holm(np.asarray(p, np.float64))
        for key, difference, one, p_holm in zip(keys, differences, p, corrected, strict=True):
            cell = self.cells.get(key)
            if cell is None:
                continue
            cell.difference, cell.p, cell.p_holm = float(difference), float(one), float(p_holm)
            if cell.p_holm <= level and difference:
                better = (difference < 0) == (self.metric(key[1]).better == "smaller")
                cell.significant = "up" if better else "down"

    # ------------------------------------------------------------ the long form

    def long_form(self) -> pa.Table:
        """Every cell as a row, in the order of the entries."""
        by_name = {entry.name: entry for entry in self.entries}
        rows: list[dict[str, Any]] = []
        for (name, column), cell in self.cells.items():
            entry = by_name[name]
            names = {"dataset": self.dataset, **self.shared(), **self.identity(entry)}
            counted = {self.COUNTED: cell.count, "seeds": len(entry.runs), "baseline": self.is_baseline(entry)}
            rows.append({**names, **vars(column), **vars(cell), **counted, "remarks": "; ".join(entry.remarks)})
        return pa.Table.from_pylist(rows, self._schema())

    def kept(self) -> dict[str, Any]:
        """What else is written with the long form, as JSON of its metadata."""
        return {}

    def _schema(self) -> pa.Schema:
        names = ["dataset", *self.shared(), *self.identity(self.entries[0])]
        text, real, count, flag = pa.string(), pa.float64(), pa.int32(), pa.bool_()
        return pa.schema(
            [
                *((name, text) for name in names),
                *((name, text) for name in ("kind", "group", "metric")),
                *((name, real) for name in ("mean", "sd", *(("low", "high") if self.INTERVALS else ()))),
                *((name, count) for name in ("seeds", self.COUNTED)),
                *((name, flag) for name in ("best", "baseline")),
                *((name, real) for name in ("difference", "p", "p_holm")),
                ("significant", text),
                ("remarks", text),
            ]
        )

    def read(self, path: str | Path) -> None:
        """Take cells and baselines from a written long form: the tests are not made again.

        Raises:
            ArtifactError: the file is missing, is of another kind, or tells of runs that are not among the entries.
        """
        by_identity = {tuple(self.identity(entry).values()): entry for entry in self.entries}
        parts = self.identity(self.entries[0])
        values = {part.name: part.name for part in fields(Cell)} | {"count": self.COUNTED}
        for row in read_table(path, "metrics").to_pylist():
            entry = by_identity.get(tuple(row[part] for part in parts))
            if entry is None:
                name = "/".join(row[part] for part in parts)
                known = ["/".join(names) for names in by_identity]
                raise ArtifactError(f"{path}: tells of {name}, which is not among the runs{did_you_mean(name, known)}")
            if row["baseline"] and not self.is_baseline(entry):
                self.baselines.append(entry)
            cell = Cell(**{name: row[key] for name, key in values.items() if key in row})
            self.cells[entry.name, Column(row["metric"], row["kind"], row["group"])] = cell
        self.comparisons = sum(cell.p is not None for cell in self.cells.values())
