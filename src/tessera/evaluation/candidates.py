"""The sampled protocol: negatives drawn once, kept in a file, the same for every system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tessera.artifacts.tables import ArtifactError, check_ids, read_table
from tessera.data.dataset import Cases
from tessera.data.identifiers import positions_in
from tessera.data.joins import Join, quoted
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
    """Read a published file, `user negative negative ...` a line, raw ids. Users of other datasets are passed over.

    Args:
        raw_users: raw ids by dense id, position 0 unused.
        raw_items: the same for items.
    Raises:
        ArtifactError: no user of the file is in the dataset, or not every negative of one that is; names file, line and
            id.
    """
    with Path(path).open(encoding="utf-8") as file:
        lines = [(number, parts) for number, line in enumerate(file, 1) if (parts := line.split())]
    user_ids = _dense_ids({parts[0] for _, parts in lines}, raw_users)
    item_ids = _dense_ids({raw for _, parts in lines for raw in parts[1:]}, raw_items)
    met_users, met_items = Join(dict.fromkeys(raw_users[1:])), Join(dict.fromkeys(raw_items[1:]))
    users, lists, unknown, first = [], [], 0, ""
    for number, (user, *negatives) in lines:
        if not met_users.meet(raw_users[user_ids[user]] if user_ids[user] else user):
            continue
        for raw in negatives:
            if not met_items.meet(raw_items[item_ids[raw]] if item_ids[raw] else raw):
                unknown += 1
                first = first or f"line {number}: item {raw!r} is not in the dataset"
        users.append(user_ids[user])
        lists.append([item_ids[raw] for raw in negatives])
    met_users.tell(path, "users", ArtifactError)
    if not met_items.met:
        met_items.tell(path, "items", ArtifactError)
    if unknown:
        # leaving them out would make the task easier than the published one
        raise ArtifactError(
            f"{path}: {first}; nor are {unknown - 1:,} more of the file's {met_items.rows:,} negatives "
            f"(items in the file alone: {quoted(met_items.strangers)}; in the dataset: {quoted(raw_items[1:])})"
        )
    return pa.table({"user": pa.array(users, pa.int32()), "items": pa.array(lists, pa.list_(pa.int32()))})


def _dense_ids(ids: set[str], raw_ids: list[str]) -> dict[str, int]:
    """Dense ids of the raw ids of a file, 0 for those that the dataset does not know."""
    return {raw: place + 1 for raw, place in zip(ids, positions_in(ids, raw_ids[1:]), strict=True)}


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
    candidates = padded(values, offsets[order], offsets[order + 1] - offsets[order])
    return np.where(candidates == cases.targets[:, None], 0, candidates)
