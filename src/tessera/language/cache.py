"""Keys and values of what a language model has read, as plain tensors: gradients pass, nothing is changed in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

Cache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of every layer, each (batch, heads, length, head dim)."""


def filled(cache: Cache) -> Any:
    """A transformers cache that starts with these keys and values and leaves them as they are."""
    grown: Any = DynamicCache()
    for keys, values in cache:
        layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        grown.layers.append(layer)
    return grown


def kept(cache: Any) -> Cache:
    """The keys and values of a transformers cache."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def spread(cache: Cache, rows: int) -> Cache:
    """A cache of one row, for as many rows."""
    return tuple((keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in cache)
