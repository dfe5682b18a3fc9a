"""Do groups of items agree with what is known of the items? Purity and mutual information."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tessera.artifacts.tables import read_table

MOST_VALUES = 100
"""An attribute with more different values is no category."""
LEAST_SHARE = 0.5
"""An attribute that fewer of the items have says little of the catalogue."""
LEAST_MEMBERS = 5
"""Mean items a value: what nearly every item has to itself is no category either."""

Ints = NDArray[np.int64]


def categories(items: str | Path) -> dict[str, Ints]:
    """attribute -> (items + 1,) number of each item's value, -1 where it has none; the categories of a catalogue.

    Args:
        items: items.parquet.
    """
    table = read_table(items, "items", ["item", "attributes"])
    count = table.num_rows
    return {
        name: _numbered(known, count)
        for name, known in attribute_values(table).items()
        if _is_category(Counter(known.values()), count)
    }


def attribute_values(items: pa.Table) -> dict[str, dict[int, str]]:
    """attribute -> item id -> its value, where it is no empty text; of a table with `item` and `attributes`."""
    values: dict[str, dict[int, str]] = {}
    for row in items.select(["item", "attributes"]).to_pylist():
        for name, text in row["attributes"] or []:
            if text:
                values.setdefault(name, {})[row["item"]] = text
    return values


def _is_category(counts: Mapping[str, int], items: int) -> bool:
    known = sum(counts.values())
    few = 2 <= len(counts) <= min(MOST_VALUES, known / LEAST_MEMBERS)
    return few and known >= LEAST_SHARE * items


def _numbered(known: Mapping[int, str], count: int) -> Ints:
    number = {value: place for place, value in enumerate(sorted(set(known.values())))}
    labels = np.full(count + 1, -1)
    for item, value in known.items():
        labels[item] = number[value]
    return labels


def _table(groups: Ints, labels: Ints) -> NDArray[np.float64]:
    """(pairs, 3) group, label and count of those that occur."""
    pairs, counts = np.unique(np.stack([groups, labels], 1), axis=0, return_counts=True)
    return np.column_stack([pairs, counts]).astype(np.float64)


def majority_share(groups: Ints, labels: Ints) -> float:
    """Share of members whose label is the most frequent one of their group (purity); 1 when every group has one."""
    table = _table(groups, labels)
    largest = np.zeros(int(groups.max()) + 1)
    np.maximum.at(largest, table[:, 0].astype(int), table[:, 2])
    return float(largest.sum() / len(groups))


def normalised_information(groups: Ints, labels: Ints) -> float:
    """Mutual information of group and label over the mean of their entropies, 0 to 1; 1 where both are constant."""
    n = len(groups)
    joint = _table(groups, labels)[:, 2] / n
    entropies = [_entropy(np.unique(column, return_counts=True)[1] / n) for column in (groups, labels)]
    mean = sum(entropies) / 2
    return float(np.clip((sum(entropies) - _entropy(joint)) / mean, 0, 1)) if mean > 0 else 1.0


def _entropy(shares: NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())


def describe_purity(levels: Sequence[Ints], labels: Ints, seed: int = 0) -> list[dict[str, float]]:
    """How well nested groups agree with labels, the coarsest first.

    Small groups are pure by chance: `majority_by_chance` and `information_by_chance` are the same numbers of labels
    that were shuffled.

    Args:
        levels: (n,) the group of each item, one row of groups a level.
        labels: (n,) the label of each item, from 0.
    """
    shuffled = np.random.default_rng(seed).permutation(labels)
    return [
        {
            "level": place,
            "majority": majority_share(groups, labels),
            "majority_by_chance": majority_share(groups, shuffled),
            "information": normalised_information(groups, labels),
            "information_by_chance": normalised_information(groups, shuffled),
        }
        for place, groups in enumerate(levels, 1)
    ]
