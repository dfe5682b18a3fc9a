"""Text of items as people wrote it: without markup, entities and pieces of web pages."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

_TAG = re.compile(r"</?[a-zA-Z!?][^<>]{0,2000}>")
_PAGE_PARTS = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_SPACE = re.compile(r"\s+")
# What crawls leave where a title or a price should be.
_DEBRIS = re.compile(r"getTime\(|function\s*\(|^\s*var [\w$]+\s*=|[#.][\w-]+\s*\{[^}]*:[^}]*\}|window\.\w+\s*=")


def clean(text: str) -> str:
    """Markup stripped, entities resolved, white space collapsed; scripts and style sheets become an empty text."""
    text = html.unescape(text) if "&" in text else text
    if "<" in text:
        text = _TAG.sub(" ", _PAGE_PARTS.sub(" ", text))
        text = html.unescape(text) if "&" in text else text
    if _DEBRIS.search(text):
        return ""
    return _SPACE.sub(" ", text).strip()


def as_text(value: Any, separator: str = ", ") -> str:
    """Text of a metadata value: lists joined (an entry once), mappings as `key: value`, null and NaN empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        pairs = ((clean(str(key)).rstrip(":").strip(), as_text(entry)) for key, entry in value.items())
        return separator.join(f"{key}: {entry}" for key, entry in pairs if entry)
    if isinstance(value, list | tuple):
        return separator.join(dict.fromkeys(filter(None, (as_text(entry, separator) for entry in value))))
    return str(value)
