"""What the page says of item tables and captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tessera.artifacts.files import read_json
from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import ArtifactError, read_table
from tessera.reporting import table_plots
from tessera.reporting.explorer import explored_items, explorer_data, read_neighbours
from tessera.reporting.plots import Plot
from tessera.reporting.probes import ProbeTable, probe_table
from tessera.reporting.runs import read_history
from tessera.reporting.samples import Catalogue, ItemCard, sample_items
from tessera.settings.base import did_you_mean

Files = Mapping[str, str | Path]
_CAPTION = 600
"""Most characters of a caption."""

COLUMNS = (
    ("dim", "Width", ",.0f"),
    ("items", "Items", ",.0f"),
    ("effective_rank", "Effective rank", ",.1f"),
    ("mean_cosine", "Mean cosine", ".3f"),
    ("uniformity", "Uniformity", ".3f"),
    ("alignment", "Alignment", ".3f"),
    ("kendall_tau", "Kendall's τ", ".3f"),
)
"""Key of the diagnostics, header, format."""


@dataclass(frozen=True)
class Representations:
    """Item tables of a dataset."""

    rows: list[tuple[str, list[tuple[float | None, str]]]]
    """Table, and a value and its text for each of `COLUMNS`."""
    plots: list[Plot]
    explorer: str
    """JSON for the page's script; empty where there is nothing to explore."""
    explored: frozenset[int]
    """Items that it holds, with their pictures."""
    probes: ProbeTable | None = None
    """What the vectors know of attributes; None where nothing was probed."""


@dataclass(frozen=True)
class Captioned:
    """Sample items with what each caption recipe says of them."""

    counts: list[tuple[str, str]]
    """Recipe, and how many items have which status."""
    items: list[tuple[ItemCard, list[tuple[str, str, bool]]]]
    """Item, and for each recipe its name, the caption or the status, and whether it is a caption."""


def representations(catalogue: Catalogue, tables: Files, embedders: Files, most: int) -> Representations | None:
    """The diagnostics of every table and the training of every embedder; None where there is neither.

    Args:
        tables: name -> diagnostics (JSON).
        embedders: name -> history.jsonl.
        most: items in the explorer.
    Raises:
        ArtifactError: a file is missing or lacks a key.
    """
    if not tables and not embedders:
        return None
    diagnostics = {name: _read(Path(path)) for name, path in tables.items()}
    rows = [(name, [_cell(table.get(key), form) for key, _, form in COLUMNS]) for name, table in diagnostics.items()]
    drawn = [
        table_plots.spread(diagnostics),
        table_plots.by_bin(diagnostics, "cosine_to_mean", "cosine to the mean vector", "table-mean-cosine"),
        table_plots.by_bin(diagnostics, "mean_cosine", "mean cosine between items", "table-bin-cosine"),
        *table_plots.embedder_curves({name: read_history(Path(path)) for name, path in embedders.items()}),
    ]
    neighbours = {name: read_neighbours(table, tables[name]) for name, table in diagnostics.items()}
    return Representations(
        rows,
        [plot for plot in drawn if plot is not None],
        explorer_data(catalogue, neighbours, most),
        frozenset(explored_items(catalogue, neighbours, most)),
        probe_table(diagnostics, tables),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected the diagnostics of an item table")
    content = read_json(path)
    for key in ("dim", "items", "neighbours"):
        if key not in content:
            raise ArtifactError(f"{path}: lacks the key {key!r}{did_you_mean(key, content)}")
    return dict(content)


def _cell(value: float | None, form: str) -> tuple[float | None, str]:
    return value, "–" if value is None else format(value, form)


def captioned(catalogue: Catalogue, captions: Files, wanted: int) -> Captioned | None:
    """What each recipe says of sample items; None where there is no recipe.

    Args:
        captions: recipe -> Parquet of kind `captions`.
        wanted: items shown.
    """
    if not captions:
        return None
    tables = {name: read_table(path, "captions") for name, path in captions.items()}
    counts = [(name, _counts(table.column("status").to_pylist())) for name, table in tables.items()]
    cards = sample_items(catalogue, wanted)
    ids = pa.array([card.item for card in cards], pa.int32())
    said: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, table in tables.items():
        rows = table.filter(pc.is_in(table.column("item"), ids)).to_pylist()
        said[name] = {
            row["item"]: (
                row["status"] if row["text"] is None else one_line(row["text"], _CAPTION),
                row["text"] is not None,
            )
            for row in rows
        }
    missing = ("not captioned", False)
    items = [(card, [(name, *said[name].get(card.item, missing)) for name in said]) for card in cards]
    return Captioned(counts, items)


def _counts(statuses: Sequence[str]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in Counter(statuses).most_common())
