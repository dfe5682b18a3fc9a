"""What the report page says of click-through models: a section a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera.artifacts.files import read_json
from tessera.reporting import claims
from tessera.reporting.codes import SemanticIdSection, semantic_ids
from tessera.reporting.ctr import MAIN, ClickTable, load
from tessera.reporting.ctr_comparison import ClickComparison, compare
from tessera.reporting.ctr_plots import all_plots
from tessera.reporting.page import NOT_TOLD, Made, write_page
from tessera.reporting.plots import Plot
from tessera.reporting.representations import Files
from tessera.reporting.runs import read_history
from tessera.reporting.samples import Catalogue
from tessera.reporting.verdict import Verdict, costs_of, verdict
from tessera.settings.reporting import Report


@dataclass(frozen=True)
class Section:
    """Everything that the page says of one dataset."""

    name: str
    table: ClickTable
    verdict: Verdict | None
    compared: ClickComparison | None
    claims: claims.ClaimTable | None
    samples: dict[str, Any]
    """samples.json."""
    codes: SemanticIdSection | None
    plots: list[Plot]
    broken_pictures: list[str]
    """`name: reason` of those that would be shown."""

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        return self.verdict.summary if self.verdict else ""

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
        _section(results, name, paths, report, config, *(part.get(name, {}) for part in parts))
        for name, paths in runs.items()
    ]
    known = {"claim_heads": claims.HEADS, "claim_cells": claims.cells, "main": MAIN}
    write_page(output, "ctr.html", report, sections, config, results, known, made)


def _section(
    results: Path,
    name: str,
    paths: Sequence[str],
    report: Report,
    config: Mapping[str, Any],
    codes: Files,
    health: Files,
) -> Section:
    folder = results / name / "ctr"
    metric_files = [folder / "runs" / path / "metrics.json" for path in paths]
    table = load(results / "tables" / f"{name}-ctr.parquet", metric_files)
    # of several seeds the first
    curves = {entry.name: read_history(entry.runs[0].path.with_name("history.jsonl")) for entry in table.entries}
    samples = read_json(folder / "samples" / "samples.json")
    compared = compare(table)
    said = results / "tables" / f"{name}-claims-ctr.parquet"
    of_codes, broken = None, []
    if codes:
        catalogue = Catalogue(results / name / "data")
        of_codes = semantic_ids(catalogue, codes, health, report.explorer_items)
        broken = catalogue.pictures.tell_broken()
    return Section(
        name=name,
        table=table,
        verdict=verdict(table, MAIN, compared, costs_of(table, results)),
        compared=compared,
        claims=claims.read(said) if config.get("claims") else None,
        samples=samples,
        codes=of_codes,
        plots=all_plots(table, curves),
        broken_pictures=broken,
    )
