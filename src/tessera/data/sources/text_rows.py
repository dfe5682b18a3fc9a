"""Rows of plain text: fields between separators, without quotes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tessera.data.blocks import Block, blocks
from tessera.data.files import DataFileError
from tessera.data.log import RawLog


def text_lines(block: Block, path: Path, log: RawLog) -> pl.DataFrame:
    """The lines of a block as columns `line` and `text`; blank ones are skipped, undecodable ones rejected."""
    try:
        texts: list[str | None] = list(block.data.decode().split("\n")[:-1])
    except UnicodeDecodeError:
        texts = []
        for number, raw in enumerate(block.data.split(b"\n")[:-1], block.first):
            try:
                texts.append(raw.decode())
            except UnicodeDecodeError:
                texts.append(None)
                log.reject(path, number, "not utf-8 text", raw.decode("utf-8", "replace"))
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String}).with_row_index("line", offset=block.first)
    frame = frame.with_columns(pl.col("line").cast(pl.Int64), pl.col("text").str.strip_chars_end("\r"))
    return frame.filter(pl.col("text").str.strip_chars() != "")


def text_rows(
    path: Path, separator: str, log: RawLog, names: list[str] | None = None, encoding: str | None = None, skip: int = 0
) -> Iterator[tuple[list[str], pl.DataFrame]]:
    """Rows with as many fields as there are names; others are rejected, unless the further fields are empty.

    Args:
        names: names of the fields; None reads them from the first line.
        encoding: as for `open_bytes`.
        skip: lines at the top that are no rows, where the names are given.
    Yields:
        The names, and a frame of `line`, `text` and the list column `fields`.
    """
    for block in blocks(path, encoding=encoding):
        frame = text_lines(block, path, log)
        if skip and block.first == 1:
            frame = frame.filter(pl.col("line") > skip)
        if names is None:
            if not frame.height:
                continue
            names = _without_empty_end(frame["text"][0].split(separator))
            if len(names) < 2:
                raise DataFileError(f"{path}: line 1: expected names separated by {separator!r}, got {names[0]!r}")
            frame = frame.slice(1)
        frame = frame.with_columns(fields=pl.col("text").str.split(separator))
        width = len(names)
        size = pl.col("fields").list.len()
        if (frame["fields"].list.len() > width).any():  # separators at the end of a row do no harm
            empty = pl.col("fields").list.slice(width).list.join("").str.strip_chars() == ""
            kept = pl.when((size > width) & empty).then(pl.col("fields").list.head(width)).otherwise("fields")
            frame = frame.with_columns(fields=kept)
        wrong = size != width
        for line, text, fields in frame.filter(wrong).iter_rows():
            log.reject(path, line, f"{len(fields)} fields, expected {width}", text)
        yield names, frame.filter(~wrong)


def _without_empty_end(names: list[str]) -> list[str]:
    while names and not names[-1].strip():
        names = names[:-1]
    return names


def field(index: int) -> pl.Expr:
    """A field by its place."""
    return pl.col("fields").list.get(index)


def add_rows(log: RawLog, path: Path, frame: pl.DataFrame, **columns: pl.Expr) -> None:
    """Hand rows over, with the source's text at hand for those that are rejected."""

    def text(line: int) -> str:
        return str(frame["text"][int(frame["line"].search_sorted(line))])

    log.add(frame.select("line", **columns), path, text)
