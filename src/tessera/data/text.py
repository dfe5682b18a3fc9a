"""Text of items as people wrote it: without markup, entities and pieces of web pages.

Markup is told by its form: names of HTML elements, attributes, ends; scripts and style sheets by their grammar. A word
alone never takes anything away: `Multi-function (12 in 1) pliers`, `Lamp in <Style> of 1950s`, `size <M>` stay.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from html.entities import html5
from typing import Any, Literal

import numpy as np

from tessera.data.markup import is_code, strip_markup

LONGEST = 50_000
"""Characters of a text that are read; what is behind them is left out, before anything else looks at it."""
DEEPEST = 20
"""Lists and mappings inside each other that are read."""

Kind = Literal["title", "text"]

_SPACE = re.compile(r"\s+")
# with its semicolon, or one of the few that crawls leave without it: `Pen &notebook` is no entity
_ENTITY = re.compile(r"&(?:#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|([a-zA-Z][a-zA-Z0-9]{1,31});|(?:amp|lt|gt|quot|nbsp)\b)")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
_MISREAD = re.compile(r"[\x80-\x84\x86-\x9f]")  # what stands in other encodings for dashes and quotes
_SURROGATES = re.compile(r"[\ud800-\udfff]")

_counts: ContextVar[Counter[str] | None] = ContextVar("counts", default=None)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what happens to the texts that are cleaned inside the block.

    The keys are `titles_emptied` (nothing but markup or code), `titles_changed` (some of it was), `titles_cut` (beyond
    `LONGEST`), and the same of `texts`, which are all others. Entities and blanks are not counted.
    """
    counts: Counter[str] = Counter()
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def clean(text: str, kind: Kind = "text") -> str:
    """Markup, scripts and style sheets taken out, entities resolved, controls removed, white space collapsed."""
    cut = len(text) > LONGEST
    read = text[:LONGEST]
    # entities stand inside of attributes, too: tags first; then those that were written with entities
    bare = strip_markup(read)
    resolved = _unescape(bare)
    plain = bare if resolved is bare else strip_markup(resolved)
    if is_code(plain):
        plain = ""
    marked = bare != read or plain != resolved
    plain = _CONTROLS.sub("", plain)
    plain = _SPACE.sub(" ", _SURROGATES.sub("\ufffd", _MISREAD.sub(" ", plain))).strip()
    counts = _counts.get()
    if counts is not None:
        if marked and read.strip():
            counts[f"{kind}s_changed" if plain else f"{kind}s_emptied"] += 1
        if cut:
            counts[f"{kind}s_cut"] += 1
    return plain


def _unescape(text: str) -> str:
    return _ENTITY.sub(_resolved, text) if "&" in text else text


def _resolved(entity: re.Match[str]) -> str:
    name = entity[1]
    return html.unescape(entity[0]) if name is None or f"{name};" in html5 else entity[0]


def as_title(value: Any) -> str:
    """A title from a metadata value, counted as one."""
    return clean(value, "title") if isinstance(value, str) else as_text(value)


def as_text(value: Any, separator: str = ", ", depth: int = 0) -> str:
    """Text of a metadata value: lists joined (an entry once), mappings as `key: value`, null and NaN empty."""
    if isinstance(value, np.ndarray):  # a list of a Parquet file that pandas read
        value = list(value)
    if value is None or value != value or depth > DEEPEST:
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        pairs = ((clean(str(key)).rstrip(":").strip(), as_text(entry, depth=depth + 1)) for key, entry in value.items())
        return separator.join(f"{key}: {entry}" for key, entry in pairs if entry)
    if isinstance(value, list | tuple):
        entries = (as_text(entry, separator, depth + 1) for entry in value)
        return separator.join(dict.fromkeys(filter(None, entries)))
    return str(value)
