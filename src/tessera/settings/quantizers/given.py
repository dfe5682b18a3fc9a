"""Codes from a file."""

from __future__ import annotations

from typing import Literal

from tessera.settings.base import Settings


class GivenCodes(Settings):
    """Codes that exist already: JSON of raw id to a list of codes, as `<a_12>` or numbers (LETTER, MiniOneRec)."""

    quantizer: Literal["given"] = "given"
    path: str
    """The file, looked up like data files."""
    offset: int = 0
    """Added to the raw ids of the file, where it counts from another number than the dataset."""
    conflicts: Literal["none", "extra_level"] = "none"
    """Items with the same codes: left so, or told apart by one more code."""
