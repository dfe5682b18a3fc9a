"""Groups against categories: known cases, chance, and which attributes are categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import normalized_mutual_info_score

from tessera.artifacts.tables import write_table
from tessera.evaluation.purity import categories, describe_purity, majority_share, normalised_information

LABELS = np.array([0, 0, 0, 1, 1, 2])


def test_known_cases() -> None:
    assert majority_share(LABELS, LABELS) == 1
    assert normalised_information(LABELS, LABELS) == pytest.approx(1)
    assert normalised_information(np.array([4, 4, 4, 0, 0, 9]), LABELS) == pytest.approx(1)
    one = np.zeros(6, np.int64)
    assert majority_share(one, LABELS) == 0.5
    assert normalised_information(one, LABELS) == 0
    assert normalised_information(one, one) == 1
    assert majority_share(np.array([0, 0, 0, 0, 5, 5]), LABELS) == pytest.approx(4 / 6)


@pytest.mark.parametrize("seed", range(3))
def test_information_is_that_of_scikit_learn(seed: int) -> None:
    groups, labels = np.random.default_rng(seed).integers(0, 7, (2, 80))
    assert normalised_information(groups, labels) == pytest.approx(normalized_mutual_info_score(labels, groups))


def test_chance_is_told_beside() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    told = describe_purity([labels, labels * 50 + rng.integers(0, 50, 200), np.arange(200)], labels)
    assert [row["level"] for row in told] == [1, 2, 3]
    assert told[0]["majority"] == told[2]["majority"] == told[2]["majority_by_chance"] == 1
    assert told[0]["majority_by_chance"] < 0.5
    assert told[0]["information"] == pytest.approx(1)
    assert told[0]["information_by_chance"] < 0.1
    assert told[2]["information"] == pytest.approx(told[2]["information_by_chance"])


def test_attributes_with_few_values_are_categories(tmp_path: Path) -> None:
    attributes = [
        [("category", "ab"[i % 2]), ("title", str(i)), ("same", "x"), ("brand", "cde"[i % 3])]
        + ([("rare", "yz"[i % 2])] if i < 10 else [])
        for i in range(40)
    ]
    attributes[5] = [("category", "")]
    table = pa.table(
        {
            "item": pa.array(range(1, 41), pa.int32()),
            "raw_id": [str(i) for i in range(40)],
            "title": pa.array([None] * 40, pa.string()),
            "attributes": pa.array(attributes, pa.map_(pa.string(), pa.string())),
            "image": pa.array([None] * 40, pa.string()),
        }
    )
    write_table(tmp_path / "items.parquet", table, "items")
    found = categories(tmp_path / "items.parquet")
    assert set(found) == {"category", "brand"}
    assert found["category"][:8].tolist() == [-1, 0, 1, 0, 1, 0, -1, 0]
