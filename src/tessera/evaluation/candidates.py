"""The sampled protocol: negatives drawn once, kept in a file, the same for every system."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from tessera.artifacts.logs import Progress
from tessera.artifacts.tables import ArtifactError, check_ids, read_table
from tessera.data.dataset import Cases
from tessera.data.identifiers import positions_in
from tessera.data.joins import Join, quoted
from tessera.data.padding import padded
from tessera.settings.evaluation import SampledRanking

_LARGE = 2**15
"""From so many items on negatives are drawn one by one: the time goes with the negatives, not with the catalogue."""
_EXPECTED = "expected `user negative negative ...`, one line a user, each negative once"


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
    log_weights, cumulative = np.log(weights), np.cumsum(weights)
    lists: list[np.ndarray] = []
    with Progress("negatives", len(cases), "users") as progress:
        for case, (user, target, repeat) in enumerate(zip(cases.users, cases.targets, cases.repeats, strict=True)):
            barred = np.append(cases.history(case), target)
            generator = np.random.default_rng((settings.seed, int(user)))
            if items >= _LARGE and 4 * (len(barred) + settings.negatives) < items:
                lists.append(_one_by_one(generator, cumulative, barred, settings.negatives))
            else:
                lists.append(_at_once(generator, log_weights, barred, settings.negatives))
            if len(lists[-1]) < settings.negatives and not repeat:
                raise ValueError(
                    f"evaluation.candidates.negatives: {settings.negatives} negatives were asked for, but user {user} "
                    f"has {len(lists[-1])} of {items} items unseen"
                )
            progress.update(1)
    return pa.table({"user": pa.array(cases.users), "items": pa.array(lists, pa.list_(pa.int32()))})


def _at_once(generator: np.random.Generator, log_weights: np.ndarray, barred: np.ndarray, wanted: int) -> np.ndarray:
    """(wanted,) item ids, or all that are not barred: the largest of log-weight plus Gumbel noise, a weighted draw
    without replacement (Efraimidis 2006)."""
    keys = log_weights + generator.gumbel(size=len(log_weights))
    keys[barred - 1] = -np.inf
    drawn = min(int(np.isfinite(keys).sum()), wanted)
    return np.argpartition(-keys, drawn - 1)[:drawn] + 1 if drawn else np.zeros(0, np.int64)


def _one_by_one(generator: np.random.Generator, cumulative: np.ndarray, barred: np.ndarray, wanted: int) -> np.ndarray:
    """(wanted,) item ids of the same distribution: drawn with replacement, what is barred or there already left out."""
    chosen = np.zeros(0, np.int64)
    while len(chosen) < wanted:
        points = generator.random(2 * (wanted - len(chosen))) * cumulative[-1]
        drawn = np.searchsorted(cumulative[:-1], points, side="right") + 1  # a point rounded up is of the last item
        both = np.concatenate([chosen, drawn])
        _, first = np.unique(both, return_index=True)
        each = both[np.sort(first)]
        chosen = each[~np.isin(each, barred)][:wanted]
    return chosen


def parse_candidates(path: str | Path, raw_users: list[str], raw_items: list[str]) -> pa.Table:
    """Read a published file, `user negative negative ...` a line, raw ids. Users of other datasets are passed over.

    Args:
        raw_users: raw ids by dense id, position 0 unused.
        raw_items: the same for items.
    Raises:
        ArtifactError: no user of the file is in the dataset, or not every negative of one that is; a user has two
            lines or no negative, or a negative twice; names file, line and id.
    """
    lines = _lines(Path(path))
    user_ids = _dense_ids({parts[0] for _, parts in lines}, raw_users)
    item_ids = _dense_ids({raw for _, parts in lines for raw in parts[1:]}, raw_items)
    met_users, met_items = Join(dict.fromkeys(raw_users[1:])), Join(dict.fromkeys(raw_items[1:]))
    lists: dict[str, list[int]] = {}
    line_of: dict[str, int] = {}
    unknown, first = 0, ""
    for number, (user, *negatives) in lines:
        if not met_users.meet(raw_users[user_ids[user]] if user_ids[user] else user):
            continue
        for raw in negatives:
            if not met_items.meet(raw_items[item_ids[raw]] if item_ids[raw] else raw):
                unknown += 1
                first = first or f"line {number}: item {raw!r} is not in the dataset"
        problem = f"has line {line_of[user]}, too" if user in line_of else _problem(negatives)
        if problem:
            raise ArtifactError(f"{path}: line {number}: user {user!r} {problem}; {_EXPECTED}")
        line_of[user] = number
        lists[user] = [item_ids[raw] for raw in negatives]
    met_users.tell(path, "users", ArtifactError)
    if not met_items.met:
        met_items.tell(path, "items", ArtifactError)
    if unknown:
        # leaving them out would make the task easier than the published one
        raise ArtifactError(
            f"{path}: {first}; nor are {unknown - 1:,} more of the file's {met_items.rows:,} negatives "
            f"(items in the file alone: {quoted(met_items.strangers)}; in the dataset: {quoted(raw_items[1:])})"
        )
    users = pa.array([user_ids[user] for user in lists], pa.int32())
    return pa.table({"user": users, "items": pa.array(lists.values(), pa.list_(pa.int32()))})


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and words of every line that is not empty.

    Raises:
        ArtifactError: the file is no UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: no UTF-8 text (byte {error.start}); {_EXPECTED}") from None
    return [(number, words) for number, line in enumerate(text.split("\n"), 1) if (words := line.split())]


def _problem(negatives: list[str]) -> str:
    """What is wrong with the negatives of a user: none, or one of them twice, which would be ranked as two."""
    if not negatives:
        return "has no negatives"
    raw, times = Counter(negatives).most_common(1)[0]
    return f"has the item {raw!r} {times} times" if times > 1 else ""


def _dense_ids(ids: set[str], raw_ids: list[str]) -> dict[str, int]:
    """Dense ids of the raw ids of a file, 0 for those that the dataset does not know."""
    return {raw: place + 1 for raw, place in zip(ids, positions_in(ids, raw_ids[1:]), strict=True)}


def check_all_users(path: str | Path, table: pa.Table, cases: Cases, raw_users: list[str]) -> None:
    """Refuse a published file that leaves out a test user, or has nothing but the target of one, whom all would hit.

    Args:
        path: of the file.
        table: what `parse_candidates` read.
        cases: of the users that are judged.
        raw_users: raw ids by dense id, position 0 unused.
    Raises:
        ArtifactError: there is such a user; names the file and the first.
    """
    lists = dict(zip(table.column("user").to_pylist(), table.column("items").to_pylist(), strict=True))
    without = [user for user in cases.users.tolist() if user not in lists]
    pairs = zip(cases.users.tolist(), cases.targets.tolist(), strict=True)
    alone = [user for user, target in pairs if lists.get(user) == [target]]
    for users, problem in ((without, "no line"), (alone, "no negative but the target itself")):
        if users:
            raise ArtifactError(
                f"{path}: {len(users):,} of {len(cases):,} test users have {problem}, the first is "
                f"{raw_users[users[0]]!r}; {_EXPECTED}"
            )


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
        raise ArtifactError(f"{path}: {len(missing)} test users have no candidates, the first is user {missing[0]}")
    order = np.array([rows[int(user)] for user in cases.users], np.int64)
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.flatten().to_numpy()
    candidates = padded(values, offsets[order], offsets[order + 1] - offsets[order])
    return np.where(candidates == cases.targets[:, None], 0, candidates)
