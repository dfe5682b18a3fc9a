"""Lists of ids that are written as texts: as JSON, Python or numpy write them."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from tessera.data.identifiers import id_text, may_be_id

_ENTRY = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"\[\]]+""")
_ARRAY = re.compile(rf"\[\s*(?:{_ENTRY.pattern})(?:\s+(?:{_ENTRY.pattern}))+\s*\]")
"""Two entries or more with nothing but blanks between them."""


def ids_of_list(text: str | None) -> list[str | None] | None:
    """The ids of a list that is a text, None for each that is missing; None where it is no list of ids."""
    text = "" if text is None else text.strip()
    if not text.startswith("["):
        return None
    entries: Any
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        try:
            # before Python's lists: there `['a' 'b']` is one text, 'ab'
            entries = _array(text) if _ARRAY.fullmatch(text) else ast.literal_eval(text)  # evaluates literals alone
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return list(map(id_text, entries)) if isinstance(entries, list) and all(map(may_be_id, entries)) else None


def _array(text: str) -> list[str | float]:
    """The entries of an array of numpy, which writes no commas: `['a' 'b']`, `[1 2]`, `[1. nan]`.

    Raises:
        ValueError: an entry is neither a quoted text nor a number, such as the `...` of a long array.
    """
    return [
        ast.literal_eval(entry) if entry[0] in "'\"" else entry if entry.isdecimal() else float(entry)
        for entry in _ENTRY.findall(text[1:-1])
    ]
