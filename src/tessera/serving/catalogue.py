"""The items as people know them: raw ids, titles and attributes beside the dense ids of the library."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from tessera.artifacts.tables import PAIRS, ArtifactError, check_ids, read_table
from tessera.data.identifiers import id_text, twin
from tessera.data.text import as_text
from tessera.settings.base import did_you_mean

if TYPE_CHECKING:
    import polars as pl

Mask = npt.NDArray[np.bool_]
_NEIGHBOURS = 40
"""Ids of equal beginning, and of equal end, that an unknown one is compared with: a catalogue may have 200,000."""


def popularity_of(interactions: str | Path, items: int) -> npt.NDArray[np.int64]:
    """(items + 1,) training interactions an item, of a prepared dataset.

    Raises:
        ArtifactError: it is no such file, or names other items.
    """
    table = read_table(interactions, "interactions", ["item", "split"])
    check_ids(interactions, table, "item", items)
    trained = table.filter(pc.equal(table.column("split"), "train")).column("item").to_numpy()
    return np.bincount(trained, minlength=items + 1).astype(np.int64)


@dataclass(frozen=True)
class Catalogue:
    """Items 1..n; position 0 of every list is the padding."""

    path: Path
    """The items file that it was read from."""
    raw_ids: list[str]
    titles: list[str]
    popularity: npt.NDArray[np.int64]
    """(items + 1,) training interactions an item."""
    new: tuple[dict[str, str], ...] = ()
    """Attributes of items that came after training; they stand behind those of the file."""

    def __len__(self) -> int:
        return len(self.raw_ids) - 1

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Dense ids by raw id."""
        return {raw: number for number, raw in enumerate(self.raw_ids) if number}

    def find(self, ids: Iterable[object]) -> tuple[npt.NDArray[np.int32], list[str]]:
        """The dense ids of the known ones, in order, and those that are not known.

        Each is read by the rule of ids: a whole number written in the other way counts where it is not known itself.
        """
        known, unknown = list[int](), list[str]()
        for value in ids:
            raw = id_text(value) or ""
            number = self.numbers.get(raw) or self.numbers.get(twin(raw) or "")
            if number is None:
                unknown.append(str(value))
            else:
                known.append(number)
        return np.array(known, np.int32), unknown

    @cached_property
    def _sorted(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """(what is compared, raw id) in the order of beginnings, and of ends; upper and lower case are one."""
        forward = sorted((raw.casefold(), raw) for raw in self.raw_ids[1:])
        return forward, sorted((key[::-1], raw) for key, raw in forward)

    @cached_property
    def _without_zeros(self) -> dict[str, list[str]]:
        """Raw ids by what is left of them without the zeros before them, which a spreadsheet takes away."""
        bare: dict[str, list[str]] = {}
        for raw in self.raw_ids[1:]:
            bare.setdefault(_bare(raw), []).append(raw)
        return bare

    def nearest(self, unknown: str, most: int = 3) -> list[str]:
        """Known ids that look like an unknown one, the nearest first: those that differ in zeros before them."""
        key = unknown.strip().casefold()
        same = self._without_zeros.get(_bare(unknown), [])
        pool: dict[str, str] = {}
        for order, wanted in zip(self._sorted, (key, key[::-1]), strict=True):
            middle = bisect_left(order, (wanted, ""))
            pool.update((raw, raw.casefold()) for _, raw in order[max(0, middle - _NEIGHBOURS) : middle + _NEIGHBOURS])
        near = difflib.get_close_matches(key, dict.fromkeys(pool.values()), n=most, cutoff=0.6)
        alike = [raw for match in near for raw, folded in pool.items() if folded == match]
        return list(dict.fromkeys([*same, *alike]))[:most]

    def unknown_message(self, unknown: Sequence[str], what: str = "item") -> str:
        """`unknown items 'SKU9' (near: 'SKU1', ...)` for a message; of many the first five, and how many."""
        distinct = list(dict.fromkeys(unknown))
        shown = []
        for raw in distinct[:5]:
            near = self.nearest(raw)
            shown.append(f"{raw!r}" + (f" (near: {', '.join(map(repr, near))})" if near else ""))
        more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
        return f"unknown {what}{'s' * (len(distinct) > 1)} {', '.join(shown)}{more}"

    @cached_property
    def _attributes(self) -> pl.DataFrame:
        """A row an attribute of an item: `item` (dense id), `key`, `value`; read when they are first asked for."""
        # here, for only who chooses by attributes needs it
        import polars as pl

        table = read_table(self.path, "items", ["item", "attributes"])
        pairs = pl.Series("pairs", pl.from_arrow(table.column("attributes").cast(PAIRS)))
        listed = pl.DataFrame({"item": table.column("item").to_numpy(), "pairs": pairs})
        listed = listed.explode("pairs").drop_nulls().unnest("pairs")
        first = len(self.raw_ids) - len(self.new)
        more = [(first + place, *pair) for place, pairs in enumerate(self.new) for pair in pairs.items()]
        return pl.concat([listed, pl.DataFrame(more, listed.schema, orient="row")])

    def having(self, wanted: Mapping[str, object]) -> Mask:
        """(items + 1,) items that have every attribute of `wanted`, with its value or one of a list of values.

        Raises:
            ValueError: no item has such an attribute, or one with this value; the message names the nearest.
        """
        attributes = self._attributes
        mask = np.ones(len(self.raw_ids), bool)
        mask[0] = False
        for name, value in wanted.items():
            values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
            own = attributes.filter(attributes["key"] == str(name))
            known = set(own["value"].unique())
            if not known:
                raise ValueError(f"attribute {name!r}: no item has it{did_you_mean(name, attributes['key'].unique())}")
            chosen = [one if isinstance(one, str) else as_text(one) for one in values]
            for one in chosen:
                if one not in known:
                    raise ValueError(f"attribute {name!r}: no item has the value {one!r}{did_you_mean(one, known)}")
            having = np.zeros(len(mask), bool)
            having[own.filter(own["value"].is_in(chosen))["item"].to_numpy()] = True
            mask &= having
        return mask

    def among(self, ids: Iterable[object]) -> tuple[Mask, list[str]]:
        """(items + 1,) the items of a list, and its ids that are not known.

        Raises:
            ValueError: none of them is known.
        """
        known, unknown = self.find(ids)
        if not len(known):
            raise ValueError(
                f"nothing to choose from: {self.unknown_message(unknown) if unknown else 'the list of items is empty'}"
            )
        mask = np.zeros(len(self.raw_ids), bool)
        mask[known] = True
        return mask, unknown


def _bare(raw: str) -> str:
    """An id without case, without the zeros before it, and without a `.0` behind a whole number."""
    return raw.strip().casefold().removesuffix(".0").lstrip("0") or "0"


def read_catalogue(items: str | Path, popularity: npt.NDArray[np.int64] | None = None) -> Catalogue:
    """The catalogue of an items file; `popularity` None counts in the `interactions.parquet` beside it.

    Raises:
        ArtifactError: a file is missing or of another kind, or the two do not belong together.
    """
    items = Path(items)
    table = read_table(items, "items", ["item", "raw_id", "title"]).sort_by("item")
    check_ids(items, table, "item", table.num_rows)
    if popularity is None:
        popularity = popularity_of(items.with_name("interactions.parquet"), table.num_rows)
    if len(popularity) != table.num_rows + 1:
        raise ArtifactError(f"{items}: has {table.num_rows} items, but {len(popularity) - 1} were counted")
    titles = [title or "" for title in table.column("title").to_pylist()]
    return Catalogue(items, ["", *table.column("raw_id").to_pylist()], ["", *titles], popularity)
