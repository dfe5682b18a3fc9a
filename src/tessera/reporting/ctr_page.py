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
from tessera.reporting.page import write_page
from tessera.reporting.plots import Plot
from tessera.reporting.runs import read_history
from tessera.reporting.samples import Catalogue
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
    def drawn(self) -> list[Plot]:
        """All of its plots, for files of their own."""
        return [*self.plots, *(self.codes.plots if self.codes else [])]


def build(
    output: str | Path,
    report: Report,
    runs: Mapping[str, Sequence[str]],
    config: Mapping[str, Any],
    codes: str | None = None,
    results: str | Path = "results",
) -> None:
    """Write the page, and each of its plots to `plots/<dataset>/` beside it.

    Args:
        runs: dataset -> `model/seed-N`, in the order of the table.
        config: the whole config, shown as it is but for passwords in URLs and texts of great length.
        codes: name of the semantic IDs that models read.
        results: the folder of all artifacts.
    Raises:
        ValueError: an artifact is missing or is not what it should be.
    """
    sections = [_section(Path(results), name, paths, codes, report) for name, paths in runs.items()]
    write_page(output, "ctr.html", report, sections, config, Path(results), {})


def _section(results: Path, name: str, paths: Sequence[str], codes: str | None, report: Report) -> Section:
    folder = results / name / "ctr"
    metric_files = [folder / "runs" / path / "metrics.json" for path in paths]
    table = load(results / "tables" / f"{name}-ctr.parquet", metric_files)
    # of several seeds the first
    curves = {entry.name: read_history(entry.runs[0].path.with_name("history.jsonl")) for entry in table.entries}
    of_codes, broken = _codes(results / name, codes, report) if codes else (None, [])
    samples = read_json(folder / "samples" / "samples.json")
    return Section(name, table, samples, of_codes, all_plots(table, curves), broken)


def _codes(folder: Path, name: str, report: Report) -> tuple[SemanticIdSection | None, list[str]]:
    """What is told of the codes, and which pictures cannot be shown with them."""
    here = folder / "semantic_ids" / name
    files_of = {name: here / "codes.parquet"}, {name: here / "health.json"}
    catalogue = Catalogue(folder / "data")
    section = semantic_ids(catalogue, *files_of, report.explorer_items, frozenset())
    return section, catalogue.pictures.tell_broken()
