"""The sampled protocol: negatives drawn once, kept in a file, the same for every system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tessera.artifacts.tables import ArtifactError, check_ids, read_table
from tessera.data.dataset import Cases
from tessera.data.padding import padded
from tessera.settings.base import did_you_mean
from tessera.settings.evaluation import SampledRanking


def sample_candidates(cases: Cases, settings: SampledRanking, popularity: np.ndarray) -> pa.Table:
    """Draw negatives without replacement for every case, never from the user's history nor the target.

    Whether seen items are ranked beside them is the judge's to say (`judge.rank_cases`), by its masks: this file is the
    same under all of them. A user whose target is a seen item and who has too few other items gets all there are.

    Args:
        popularity: (items + 1,) training interactions an item; `popularity` sampling adds one to each.
    Raises:
        ValueError: a user has seen so much that too few items are left.
    """
    items = len(popularity) - 1
    weights = np.ones(items) if settings.distribution == "uniform" else popularity[1:] + 1.0
    log_weights = np.log(weights)
    lists: list[np.ndarray] = []
    for case, (user, target, repeat) in enumerate(zip(cases.users, cases.targets, cases.repeats, strict=True)):
        # the largest of log-weight plus Gumbel noise: a weighted draw without replacement (Efraimidis 2006)
        keys = log_weights + np.random.default_rng((settings.seed, int(user))).gumbel(size=items)
        keys[cases.history(case) - 1] = -np.inf
        keys[target - 1] = -np.inf
        free = int(np.isfinite(keys).sum())
        if free < settings.negatives and not repeat:
            raise ValueError(
                f"evaluation.candidates.negatives: {settings.negatives} negatives were asked for, but user {user} "
                f"has {free} of {items} items unseen"
            )
        drawn = min(free, settings.negatives)
        lists.append(np.argpartition(-keys, drawn - 1)[:drawn] + 1 if drawn else keys[:0])
    return pa.table({"user": pa.array(cases.users), "items": pa.array(lists, pa.list_(pa.int32()))})


def parse_candidates(path: str | Path, raw_users: list[str], raw_items: list[str]) -> pa.Table:
    """Read a published file, `user negative negative ...` a line, raw ids.

    Args:
        raw_users: raw ids by dense id, position 0 unused.
        raw_items: the same for items.
    Raises:
        ArtifactError: a user or an item of the file is not in the dataset; names file, line and id.
    """
    user_ids = {raw: dense for dense, raw in enumerate(raw_users) if dense}
    item_ids = {raw: dense for dense, raw in enumerate(raw_items) if dense}
    users, lists = [], []
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            parts = line.split()
            if not parts:
                continue
            if parts[0] not in user_ids:
                raise ArtifactError(f"{path}: line {number}: user {parts[0]!r} is not in the dataset")
            for raw in parts[1:]:
                if raw not in item_ids:
                    raise ArtifactError(f"{path}: line {number}: item {raw!r} is not in the dataset")
            users.append(user_ids[parts[0]])
            lists.append([item_ids[raw] for raw in parts[1:]])
    return pa.table({"user": pa.array(users, pa.int32()), "items": pa.array(lists, pa.list_(pa.int32()))})


def read_candidates(path: str | Path, cases: Cases, items: int) -> np.ndarray:
    """(cases, n) candidates in the order of the cases, padded with 0; the target is taken out of them.

    Raises:
        ArtifactError: a test user has no candidates, or an id lies outside the dataset.
    """
    table = read_table(path, "candidates")
    column = table.column("items").combine_chunks()
    check_ids(path, pa.table({"items": column.flatten()}), "items", items)
    rows = {user: row for row, user in enumerate(table.column("user").to_pylist())}
    missing = [int(user) for user in cases.users if int(user) not in rows]
    if missing:
        raise ArtifactError(
            f"{path}: {len(missing)} test users have no candidates, the first is user {missing[0]}"
            f"{did_you_mean(missing[0], map(str, list(rows)[:1000]))}"
        )
    order = np.array([rows[int(user)] for user in cases.users], np.int64)
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.flatten().to_numpy()
    found = padded(values, offsets[order], offsets[order + 1] - offsets[order])
    return np.where(found == cases.targets[:, None], 0, found)
