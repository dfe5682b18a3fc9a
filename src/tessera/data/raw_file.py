"""The Parquet file of the raw log: written as rows come, amended at the end where all rows together say more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tessera.artifacts.files import atomic
from tessera.artifacts.logs import log
from tessera.artifacts.tables import RAW_INTERACTIONS, metadata
from tessera.data.clock import SECONDS, UNITS, Clock
from tessera.data.identifiers import EXACT, twin, whole_numbers

# `row` counts up: its differences take no room, while a dictionary of it is built in vain
_STORED: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [name for name in RAW_INTERACTIONS.names if name != "row"],
    "column_encoding": {"row": "DELTA_BINARY_PACKED"},
}


class RawFile:
    """Rows on their way to the file; nothing of them stays in memory."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, settings
        self._writer: pq.ParquetWriter | None = None
        self._told = SECONDS
        self._units: list[tuple[int, str]] = []  # first row from which times have the unit
        self._pointed: set[str] = set()
        self._files: list[tuple[int, Path]] = []  # first row from which rows are of the file
        self._closed = False
        self.rows = 0

    def write(self, checked: pl.DataFrame, clock: Clock, file: Path) -> None:
        """Write rows of a file whose times are told by `clock`."""
        rows = checked.with_row_index("row", offset=self.rows)
        if not self._units or self._units[-1][1] != clock.unit:
            self._units.append((self.rows, clock.unit))
        if not self._files or self._files[-1][1] != file:
            self._files.append((self.rows, file))
        for name in ("user", "item"):
            if name not in self._pointed and rows[name].str.ends_with(".0").any():
                self._pointed.add(name)
        self._open(clock).write_table(rows.select(RAW_INTERACTIONS.names).to_arrow().cast(RAW_INTERACTIONS))
        self.rows += rows.height

    def _open(self, clock: Clock) -> pq.ParquetWriter:
        if self._writer is None:
            self._told = clock
            self._writer = self._new(self._path, clock)
        return self._writer

    def _new(self, path: Path, clock: Clock) -> pq.ParquetWriter:
        described = metadata("raw_interactions", self._settings, **clock.described())
        return pq.ParquetWriter(path, RAW_INTERACTIONS.with_metadata(described), **_STORED)

    def abandon(self) -> None:
        """Close the file as it is."""
        if self._writer is not None and not self._closed:
            self._writer.close()
        self._closed = True

    def close(self, clock: Clock) -> set[str]:
        """Close the file, with all times told by `clock` and ids by the rule of whole columns.

        Returns:
            The columns of ids whose whole numbers lost a `.0`.
        """
        if self._closed:
            return set()
        self._open(clock)
        self.abandon()
        stripped = {name for name in sorted(self._pointed) if self._are_whole(name)}
        if stripped or clock != self._told:
            self._amend(stripped, clock)
        return stripped

    def _are_whole(self, name: str) -> bool:
        column = pq.read_table(self._path, columns=[name], read_dictionary=[name]).column(name).unify_dictionaries()
        ids = pl.Series(column.chunk(0).dictionary)
        whole = whole_numbers(ids)
        pointed = ids.filter(ids.str.ends_with(".0"))
        if whole is None and len(self._files) > 1:
            whole = None if self._one_file_holds_both(column) else True
        if not whole:
            _warn_of_pair(name, pointed, ids)
        elif (pointed.str.strip_suffix(".0").cast(pl.Float64).abs() >= EXACT).any():
            log.warning("%ss are floating-point numbers beyond 2^53: the source no longer tells neighbours apart", name)
        return bool(whole)

    def _one_file_holds_both(self, column: pa.Array) -> bool:
        """Whether two ids of one file would become one: between files, `1.0` and `1` are two ways to write a number."""
        ends = [*(first for first, _ in self._files[1:]), self.rows]
        of_file: dict[Path, list[pl.Series]] = {}
        for (first, file), end in zip(self._files, ends, strict=True):
            ids = pc.unique(column.slice(first, end - first).cast(pa.string()))
            of_file.setdefault(file, []).append(pl.Series(ids.to_pylist(), dtype=pl.String))
        ids_of_files = (pl.concat(pieces).unique() for pieces in of_file.values())
        return any(ids.str.strip_suffix(".0").n_unique() < len(ids) for ids in ids_of_files)

    def _amend(self, stripped: Iterable[str], clock: Clock) -> None:
        """Write the file again, group of rows by group of rows."""
        source = pq.ParquetFile(self._path)
        with atomic(self._path) as amended, self._new(amended, clock) as writer:
            done = 0
            for number in range(source.num_row_groups):
                group = source.read_row_group(number)
                unit = next(unit for first, unit in reversed(self._units) if first <= done)
                done += group.num_rows
                columns = {name: group.column(name) for name in RAW_INTERACTIONS.names}
                factor = pa.scalar(clock.ticks // UNITS[unit], pa.int64())
                columns["timestamp"] = pc.multiply_checked(columns["timestamp"], factor)
                for name in stripped:
                    columns[name] = pc.replace_substring_regex(columns[name], r"\.0$", "")
                writer.write_table(pa.table(columns, RAW_INTERACTIONS))


def _warn_of_pair(name: str, pointed: pl.Series, ids: pl.Series) -> None:
    """Say that the log holds a number in both ways to write it, if so it is."""
    known = set(ids)
    pair = next((raw_id for raw_id in pointed if twin(raw_id) in known), None)
    if pair is not None:
        log.warning(
            "%ss %r and %r both stand in the log and are kept apart; ids that end in '.0' meet no whole numbers of "
            "other files", name, pair, twin(pair),
        )  # fmt: skip
