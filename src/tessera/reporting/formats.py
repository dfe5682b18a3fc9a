"""Metric tables as Parquet, CSV, Markdown and LaTeX. Names come from configs, so each format escapes them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tessera.artifacts.files import file_digest, write_text
from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import write_table
from tessera.reporting.tables import Cell, Column, Table

FORMATS = ("parquet", "csv", "md", "tex")
MOST = 5000
"""Most characters of one text in a table, notes and remarks included."""
_ARROWS = {"up": "↑", "down": "↓"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # \textquotedbl is not in LaTeX's default encoding
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def write(table: Table[Any], paths: Mapping[str, str | Path]) -> None:
    """Write the table as `parquet` (long form), `csv`, `md` and `tex`."""
    runs = [run for entry in table.entries for run in entry.runs]
    inputs = {f"{run.name}/seed-{run.seed}": file_digest(run.path.with_name(run.JUDGED)) for run in runs}
    settings = {"dataset": table.dataset, **table.settings()}
    more = {"judged": table.judged.judged_on(), **table.kept()}
    write_table(paths["parquet"], table.long_form(), "metrics", settings, inputs, **more)
    write_text(paths["csv"], csv_text(table))
    write_text(paths["md"], markdown(table))
    write_text(paths["tex"], latex(table))


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", one_line(text, MOST))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text, MOST))


def csv_text(table: Table[Any]) -> str:
    """A row an entry: mean, sd and corrected p of every printed column; empty where not known.

    Then what else the task tells of a row. Where a run has remarks, they stand in a last column.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    first = table.entries[0]
    noted = any(entry.remarks for entry in table.entries)
    columns = [f"{table.header(column)}{part}" for column in table.columns for part in ("", " sd", " p")]
    remarks = ["remarks"] if noted else []
    writer.writerow([*table.identity(first), "seeds", *columns, *table.facts(first), *remarks])
    for entry in table.entries:
        row: list[str | int] = [one_line(name, MOST) for name in table.identity(entry).values()]
        row.append(len(entry.runs))
        for column in table.columns:
            cell = table.cell(entry, column)
            values = (cell.mean, cell.sd, cell.p_holm) if cell else (None, None, None)
            row += ["" if value is None else f"{value:.6g}" for value in values]
        row += table.facts(entry).values()
        writer.writerow([*row, one_line("; ".join(entry.remarks), MOST)] if noted else row)
    return out.getvalue()


def _markdown_cell(table: Table[Any], column: Column, cell: Cell | None) -> str:
    if cell is None:
        return ""
    mean = table.text(column, cell.mean)
    text = f"**{mean}**" if cell.best else mean
    if spread := table.spread(column, cell):
        text += f" ± {spread}"
    return f"{text} \\*{_ARROWS[cell.significant]}" if cell.significant else text


def markdown(table: Table[Any]) -> str:
    """A table for GitHub: best in bold, stars against the baseline, the notes under it."""
    columns, labels = table.columns, table.labels(table.entries[0])
    heads = [*labels, *(table.header(column) for column in columns)]
    lines = [
        f"### {escape_markdown(table.title)}",
        "",
        "| " + " | ".join(map(escape_markdown, heads)) + " |",
        "|" + "---|" * len(labels) + "---:|" * len(columns),
    ]
    for entry in table.entries:
        names = map(escape_markdown, table.labels(entry).values())
        cells = [_markdown_cell(table, column, table.cell(entry, column)) for column in columns]
        lines.append("| " + " | ".join([*names, *cells]) + " |")
    notes = "; ".join(map(escape_markdown, table.notes()))
    return "\n".join([*lines, "", f"{notes}.", ""])


def _latex_cell(table: Table[Any], column: Column, cell: Cell | None) -> str:
    if cell is None:
        return "--"
    mean = table.text(column, cell.mean)
    text = rf"\textbf{{{mean}}}" if cell.best else mean
    if spread := table.spread(column, cell):
        text += rf"{{\scriptsize$\pm${spread}}}"
    arrow = {"up": r"\uparrow", "down": r"\downarrow"}.get(cell.significant)
    return f"{text}$^{{*{arrow}}}$" if arrow else text


def latex(table: Table[Any]) -> str:
    """A booktabs table, ready for \\input; bounds stand under a rule of their own."""
    columns, labels = table.columns, table.labels(table.entries[0])
    heads = [*(label[:1].upper() + label[1:] for label in labels), *(table.header(column) for column in columns)]
    lines = [
        r"% needs \usepackage{booktabs}, and graphicx for \resizebox",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}. {escape_latex('; '.join(table.notes()))}.}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(labels)}{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, heads)) + r" \\",
        r"\midrule",
    ]
    first_bound = next((entry for entry in table.entries if table.is_bound(entry)), None)
    for position, entry in enumerate(table.entries):
        if entry is first_bound and position:
            lines.append(r"\midrule")
        names = map(escape_latex, table.labels(entry).values())
        cells = [_latex_cell(table, column, table.cell(entry, column)) for column in columns]
        lines.append(" & ".join([*names, *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])
