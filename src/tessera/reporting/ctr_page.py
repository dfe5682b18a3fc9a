"""The report page of a click-through experiment: one HTML file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tessera.artifacts.files import read_json, write_text
from tessera.reporting import rule_graph
from tessera.reporting.codes import CODE_COLUMNS, SemanticIdSection, semantic_ids
from tessera.reporting.costs import read_costs
from tessera.reporting.ctr import ORACLE, Table, collect, shown
from tessera.reporting.ctr_plots import all_plots
from tessera.reporting.page import config_text, render, versions
from tessera.reporting.plots import Plot
from tessera.reporting.samples import Catalogue
from tessera.settings.ctr import CTREvaluation
from tessera.settings.reporting import Report


@dataclass(frozen=True)
class Section:
    """What the page says of one dataset."""

    name: str
    table: Table
    samples: dict[str, Any]
    """samples.json."""
    codes: SemanticIdSection | None
    plots: list[Plot]
    broken_pictures: list[str]
    """`name: reason` of those that would be shown."""


def build(
    output: Path,
    report: Report,
    settings: CTREvaluation,
    against: str,
    runs: Mapping[str, Sequence[str]],
    config: Mapping[str, Any],
    codes: str | None = None,
    results: Path = Path("results"),
) -> None:
    """Write the page, and each of its plots to `plots/<dataset>/` beside it.

    Args:
        against: the baseline.
        runs: dataset -> `model/seed-N`, in the order of the table.
        config: the whole config, shown as it is but for passwords in URLs and texts of great length.
        codes: name of the semantic IDs that models read.
        results: the folder of all artifacts.
    """
    sections = []
    for name, paths in runs.items():
        folder = results / name / "ctr"
        table = collect(name, [folder / "runs" / path / "metrics.json" for path in paths], against, settings)
        curves = {
            path.split("/")[0]: _history(folder / "runs" / path / "history.jsonl")
            for path in reversed(paths)  # of several seeds the first
            if not path.startswith(f"{ORACLE}/")
        }
        drawn = all_plots(table, dict(reversed(curves.items())))
        told, broken = _codes(results / name, codes, report) if codes else (None, [])
        sections.append(Section(name, table, read_json(folder / "samples/samples.json"), told, drawn, broken))
    graph = results / "report/rulegraph.mmd"
    known = {"shown": shown, "code_columns": CODE_COLUMNS}
    context = {
        "report": report,
        "sections": sections,
        "oracle": ORACLE,
        "costs": read_costs(results / "benchmarks", list(runs)),
        "graph": Markup(rule_graph.svg(graph.read_text(encoding="utf-8"))) if graph.is_file() else "",
        "config": config_text(config),
        "versions": versions(),
    }
    html = render("ctr_page.html", known, context)
    for section in sections:
        for plot in (*section.plots, *(section.codes.plots if section.codes else [])):
            write_text(output.parent / "plots" / section.name / f"{plot.name}.svg", plot.standalone())
    write_text(output, html)


def _codes(folder: Path, name: str, report: Report) -> tuple[SemanticIdSection | None, list[str]]:
    """What is told of the codes, and which pictures cannot be shown with them."""
    here = folder / "semantic_ids" / name
    files_of = {name: here / "codes.parquet"}, {name: here / "health.json"}
    catalogue = Catalogue(folder / "data")
    section = semantic_ids(catalogue, *files_of, report.explorer_items, frozenset())
    return section, catalogue.pictures.tell_broken()


def _history(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
