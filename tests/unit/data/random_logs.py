"""Random logs for tests against plain loops."""

from __future__ import annotations

import numpy as np

from tessera.data.rows import UNSAID, Rows


def random_rows(seed: int, count: int = 400, users: int = 40, items: int = 30, times: int = 50) -> Rows:
    """Random rows in the order that `Rows` promises, with many ties and duplicates."""
    draw = np.random.default_rng(seed)
    user = draw.integers(0, users, count).astype(np.int32)
    item = (items * draw.random(count) ** 2).astype(np.int32)
    time = draw.integers(0, times, count)
    order = np.lexsort((time, user))
    ratings = draw.choice([1.0, 3.0, 5.0, np.nan], count).astype(np.float32)
    return Rows(user[order], item[order], time[order], ratings, np.full(count, UNSAID, np.uint8))
