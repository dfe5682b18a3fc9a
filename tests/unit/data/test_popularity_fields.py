from __future__ import annotations

import pytest

from tessera.data.popularity_fields import counts_interactions, without_counts


@pytest.mark.parametrize(
    "name",
    ["Best Sellers Rank", "Amazon Best Sellers Rank:", "salesRank", "sales_rank", "average_rating", "rating_number",
     "Customer Reviews", "num_reviews", "item_review_count"],
)  # fmt: skip
def test_ranks_and_reviews_count_interactions(name: str) -> None:
    assert counts_interactions(name)


@pytest.mark.parametrize("name", ["rank", "rating", "Age Rating", "Size", "Amazon", "reviewer", "", "Stars"])
def test_other_fields_do_not(name: str) -> None:
    """`rating` may be an age's, `rank` a player's."""
    assert not counts_interactions(name)


def test_the_order_stays() -> None:
    assert list(without_counts({"b": 1, "sales rank": 2, "a": 3})) == ["b", "a"]
