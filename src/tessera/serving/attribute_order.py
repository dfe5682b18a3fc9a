"""The order in which a catalogue tells of its items: new ones are told of in the same, for a model reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from tessera.artifacts.tables import PAIRS, read_table


def merged_order(orders: Iterable[Sequence[str]]) -> list[str]:
    """All names in one order: that of the longest, with the names of shorter ones behind those that they follow."""
    merged: list[str] = []
    for names in sorted(set(map(tuple, orders)), key=lambda names: (-len(names), names)):
        at = 0
        for name in names:
            if name in merged:
                at = merged.index(name) + 1
            else:
                merged.insert(at, name)
                at += 1
    return merged


def in_order_of(catalogue: Path, items: pa.Table) -> pa.Table:
    """Items with their attributes in the order that a catalogue has them in; names that it does not know come last."""
    rank = {name: number for number, name in enumerate(merged_order(orders_of(catalogue)))}
    column = items.schema.get_field_index("attributes")
    ordered = [
        sorted(pairs or (), key=lambda pair: rank.get(pair[0], len(rank))) for pairs in items.column(column).to_pylist()
    ]
    field = items.schema.field(column)
    return items.set_column(column, field, pa.array(ordered, field.type))


def orders_of(catalogue: Path) -> list[list[str]]:
    """The orders in which the items of a catalogue have their attributes, each once: they are few, and items many."""
    # here, for only new items need it
    import polars as pl

    pairs = read_table(catalogue, "items", ["item", "attributes"]).column("attributes").cast(PAIRS)
    names = pl.col("pairs").list.eval(pl.element().struct.field("key"))
    frame = pl.DataFrame({"pairs": pl.Series(pl.from_arrow(pairs))})
    return frame.select(names).drop_nulls().unique().to_series().to_list()
