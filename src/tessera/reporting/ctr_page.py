"""What the report page says of click-through models: a section a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera.artifacts.files import read_json
from tessera.reporting.codes import SemanticIdSection, semantic_ids
from tessera.reporting.ctr import ClickTable, load
from tessera.reporting.ctr_plots import all_plots
from tessera.reporting.page import NOT_TOLD, Made, write_page
from tessera.reporting.plots import Plot
from tessera.reporting.representations import Files
from tessera.reporting.runs import read_history
from tessera.reporting.samples import Catalogue
from tessera.reporting.tables import Column
from tessera.settings.reporting import Report


@dataclass(frozen=True)
class Section:
    """Everything that the page says of one dataset."""

    name: str
    table: ClickTable
    samples: dict[str, Any]
    """samples.json."""
    codes: SemanticIdSection | None
    plots: list[Plot]
    broken_pictures: list[str]
    """`name: reason` of those that would be shown."""

    @property
    def summary(self) -> str:
        """The best model in one sentence."""
        best = self.table.ranked("AUC")[0]
        cell = self.table.cell(best, Column("AUC"))
        if cell is None or self.table.is_bound(best):
            return ""
        return f"{self.name}: {best.name} has the best AUC, {self.table.text(Column('AUC'), cell.mean)}."

    @property
    def drawn(self) -> list[Plot]:
        """All of its plots, for files of their own."""
        return [*self.plots, *(self.codes.plots if self.codes else [])]


def build(
    output: str | Path,
    report: Report,
    runs: Mapping[str, Sequence[str]],
    config: Mapping[str, Any],
    results: str | Path = "results",
    *,
    codes: Mapping[str, Files] | None = None,
    health: Mapping[str, Files] | None = None,
    made: Made = NOT_TOLD,
) -> None:
    """Write the page, and each of its plots to `plots/<dataset>/` beside it.

    Args:
        runs: dataset -> `model/seed-N`, in the order of the table.
        config: the whole config, shown as it is but for passwords in URLs and texts of great length.
        results: the folder of all artifacts.
        codes: dataset -> recipe of semantic IDs -> its codes (Parquet).
        health: dataset -> recipe of semantic IDs -> what was measured of them (JSON).
        made: when, by which code and by which command.
    Raises:
        ValueError: an artifact is missing or is not what it should be.
    """
    results = Path(results)
    parts = [part or {} for part in (codes, health)]
    sections = [
        _section(results, name, paths, report, *(part.get(name, {}) for part in parts)) for name, paths in runs.items()
    ]
    write_page(output, "ctr.html", report, sections, config, results, {}, made)


def _section(results: Path, name: str, paths: Sequence[str], report: Report, codes: Files, health: Files) -> Section:
    folder = results / name / "ctr"
    metric_files = [folder / "runs" / path / "metrics.json" for path in paths]
    table = load(results / "tables" / f"{name}-ctr.parquet", metric_files)
    # of several seeds the first
    curves = {entry.name: read_history(entry.runs[0].path.with_name("history.jsonl")) for entry in table.entries}
    samples = read_json(folder / "samples" / "samples.json")
    plots = all_plots(table, curves)
    if not codes:
        return Section(name, table, samples, None, plots, [])
    catalogue = Catalogue(results / name / "data")
    of_codes = semantic_ids(catalogue, codes, health, report.explorer_items)
    return Section(name, table, samples, of_codes, plots, catalogue.pictures.tell_broken())
