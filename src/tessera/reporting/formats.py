"""The metric table as CSV, Markdown and LaTeX. Names come from configs, so each format escapes them."""

from __future__ import annotations

import csv
import io
import re

from tessera.artifacts.shown import one_line
from tessera.reporting.tables import Cell, Column, Table

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
    '"': r"\textquotedbl{}",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", one_line(text, MOST))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text, MOST))


def number(column: Column, value: float) -> str:
    """Four decimals, but two for mean popularity, which counts interactions."""
    return f"{value:.2f}" if column.metric.startswith("popularity@") else f"{value:.4f}"


def csv_text(table: Table) -> str:
    """A row an entry: mean, sd and corrected p of every printed column; empty where not known.

    Then the test users that count, and the share of all whose target stands in their own history. Where a run has
    remarks, they stand in a last column.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [table.header(column) for column in table.columns]
    noted = any(entry.remarks for entry in table.entries)
    columns = [f"{head}{part}" for head in heads for part in ("", " sd", " p")]
    judged = ["test users", "repeated targets"]
    writer.writerow(["system", "recommender", "seeds", *columns, *judged, *(["remarks"] if noted else [])])
    for entry in table.entries:
        row: list[str | int] = [one_line(entry.system, MOST), one_line(entry.recommender, MOST), len(entry.runs)]
        for column in table.columns:
            cell = table.cells.get((entry.name, column))
            values = (cell.mean, cell.sd, cell.p_holm) if cell else (None, None, None)
            row += ["" if value is None else f"{value:.6g}" for value in values]
        row += [entry.runs[0].users, f"{entry.runs[0].repeat_share:.6g}"]
        writer.writerow([*row, one_line("; ".join(entry.remarks), MOST)] if noted else row)
    return out.getvalue()


def _markdown_cell(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return ""
    mean = number(column, cell.mean)
    text = f"**{mean}**" if cell.best else mean
    if cell.sd is not None:
        text += f" ± {number(column, cell.sd)}"
    return f"{text} \\*{_ARROWS[cell.significant]}" if cell.significant else text


def markdown(table: Table) -> str:
    """A table for GitHub: best in bold, stars against the baseline, the notes under it."""
    heads = ["system", "recommender", *(table.header(column) for column in table.columns)]
    lines = [
        f"### {escape_markdown(table.dataset)}",
        "",
        "| " + " | ".join(map(escape_markdown, heads)) + " |",
        "|---|---|" + "---:|" * len(table.columns),
    ]
    for entry in table.entries:
        recommender = "" if entry.is_oracle else entry.recommender
        cells = [_markdown_cell(column, table.cells.get((entry.name, column))) for column in table.columns]
        lines.append("| " + " | ".join([escape_markdown(entry.system), escape_markdown(recommender), *cells]) + " |")
    notes = "; ".join(map(escape_markdown, table.notes()))
    return "\n".join([*lines, "", f"{notes}.", ""])


def _latex_cell(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return "--"
    mean = number(column, cell.mean)
    text = rf"\textbf{{{mean}}}" if cell.best else mean
    if cell.sd is not None:
        text += rf"{{\scriptsize$\pm${number(column, cell.sd)}}}"
    arrow = {"up": r"\uparrow", "down": r"\downarrow"}.get(cell.significant)
    return f"{text}$^{{*{arrow}}}$" if arrow else text


def latex(table: Table) -> str:
    """A booktabs table, ready for \\input; the oracle stands under a rule of its own."""
    columns = table.columns
    heads = ["System", "Recommender", *(table.header(column) for column in columns)]
    lines = [
        r"% needs \usepackage{booktabs}, and graphicx for \resizebox",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(table.dataset)}. {escape_latex('; '.join(table.notes()))}.}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, heads)) + r" \\",
        r"\midrule",
    ]
    for position, entry in enumerate(table.entries):
        if entry.is_oracle and position:
            lines.append(r"\midrule")
        recommender = "" if entry.is_oracle else entry.recommender
        cells = [_latex_cell(column, table.cells.get((entry.name, column))) for column in columns]
        lines.append(" & ".join([escape_latex(entry.system), escape_latex(recommender), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])
