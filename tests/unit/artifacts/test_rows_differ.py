"""Tables that tell no item from another are refused, whichever recipe made them."""

from __future__ import annotations

import numpy as np
import pytest

from tessera.artifacts.tables import ArtifactError, check_rows_differ


def test_equal_rows_are_refused_up_to_rounding_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    row = random.standard_normal(64).astype(np.float32)
    noise = (1e-6 * random.standard_normal((30, 64))).astype(np.float32)
    for rows in (np.tile(row, (30, 1)), np.tile(row, (30, 1)) + noise, np.zeros((3, 4), np.float32)):
        with pytest.raises(ArtifactError, match=r"where: all \d+ rows have the same vector.*; why"):
            check_rows_differ("where", rows, "why")
    other = np.tile(row, (30, 1))
    other[7, 3] += 0.01
    check_rows_differ("where", other, "why")
    check_rows_differ("where", row[None], "why")
    check_rows_differ("where", np.zeros((0, 4), np.float32), "why")
