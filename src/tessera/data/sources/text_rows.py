"""Rows of plain text: fields between separators, without quotes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tessera.data.blocks import Block, blocks
from tessera.data.files import DataFileError
from tessera.data.log import RawLog


def text_lines(block: Block, path: Path, log: RawLog, encoding: str = "utf-8") -> pl.DataFrame:
    """The lines of a block as columns `line` and `text`; blank ones are skipped, undecodable ones rejected."""
    try:
        texts: list[str | None] = list(block.data.decode(encoding).split("\n")[:-1])
    except UnicodeDecodeError:
        texts = []
        for number, raw in enumerate(block.data.split(b"\n")[:-1], block.first):
            try:
                texts.append(raw.decode(encoding))
            except UnicodeDecodeError:
                texts.append(None)
                log.reject(path, number, f"not {encoding} text", raw.decode(encoding, "replace"))
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String}).with_row_index("line", offset=block.first)
    frame = frame.with_columns(pl.col("line").cast(pl.Int64), pl.col("text").str.strip_chars_end("\r"))
    return frame.filter(pl.col("text").str.strip_chars() != "")


def text_rows(
    path: Path, separator: str, log: RawLog, names: list[str] | None = None
) -> Iterator[tuple[list[str], pl.DataFrame]]:
    """Rows with as many fields as there are names; others are rejected.

    Args:
        names: names of the fields; None reads them from the first line.
    Yields:
        The names, and a frame of `line`, `text` and the list column `fields`.
    """
    for block in blocks(path):
        frame = text_lines(block, path, log)
        if names is None:
            if not frame.height:
                continue
            names = frame["text"][0].split(separator)
            if len(names) < 2:
                raise DataFileError(f"{path}: line 1: expected names separated by {separator!r}, got {names[0]!r}")
            frame = frame.slice(1)
        frame = frame.with_columns(fields=pl.col("text").str.split(separator))
        wrong = pl.col("fields").list.len() != len(names)
        for line, text, fields in frame.filter(wrong).iter_rows():
            log.reject(path, line, f"{len(fields)} fields, expected {len(names)}", text)
        yield names, frame.filter(~wrong)


def field(index: int) -> pl.Expr:
    """A field by its place."""
    return pl.col("fields").list.get(index)


def add_rows(log: RawLog, path: Path, frame: pl.DataFrame, **columns: pl.Expr) -> None:
    """Hand rows over, with the source's text at hand for those that are rejected."""

    def text(line: int) -> str:
        return str(frame["text"][int(frame["line"].search_sorted(line))])

    log.add(frame.select("line", **columns), path, text)
