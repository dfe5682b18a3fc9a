"""Codes from a file."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.quantizers.base import QuantizerSettings


class GivenCodes(QuantizerSettings):
    """Codes that exist already: JSON of raw id to a list of codes, as `<a_12>` or numbers (LETTER, MiniOneRec)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.quantization.given"
    CODEBOOKS: ClassVar[bool | None] = False
    quantizer: Literal["given"] = "given"
    path: str
    """The file, looked up like data files."""
    offset: int = 0
    """Added to the raw ids of the file, where it counts from another number than the dataset."""
    conflicts: Literal["none", "extra_level"] = "none"
    """Items with the same codes: left so, or told apart by one more code."""
