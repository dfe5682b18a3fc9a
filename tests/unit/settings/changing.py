"""Configs with one key set."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def with_key(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a config with one key set; `path` is dotted."""
    found = deepcopy(config)
    *outer, last = path.split(".")
    part: Any = found
    for key in outer:
        part = part.setdefault(key, {})
    part[last] = value
    return found
