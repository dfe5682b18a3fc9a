"""Fields of item metadata that count interactions: ranks by sales, ratings and reviews as they were at the crawl.

A crawl comes after every held-out interaction, so such a field tells of them. Sources that take all that is said of an
item leave these out; a column that a config names is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = re.compile(r"[a-z]+")
_NAMES = {
    "sales rank", "salesrank", "best seller rank", "best sellers rank", "bestseller rank", "bestsellers rank",
    "average rating", "avg rating", "mean rating", "rating number", "rating count", "ratings count", "num ratings",
    "number of ratings", "review count", "reviews count", "num reviews", "number of reviews", "customer review",
    "customer reviews", "average customer review", "item stars", "item review count",
}  # fmt: skip


def counts_interactions(name: str) -> bool:
    """Whether a field of this name counts interactions: `sales_rank`, `Amazon Best Sellers Rank:`, `average_rating`."""
    words = _WORDS.findall(name.lower())
    return " ".join(words[1:] if words[:1] == ["amazon"] else words) in _NAMES


def without_counts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that do not count interactions, in their order."""
    return {name: value for name, value in fields.items() if not counts_interactions(str(name))}
