"""From histories to the shop's log: times, ratings, rows that stand twice, lines that cannot be read.

The log is never written as a file; its lines are numbered as if it were (`LOG_NAME`, one JSON object a line), `row` of
a readable line being its number less one. It comes in blocks of `CHUNK` users, each block in time order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tessera.artifacts.tables import RAW_INTERACTIONS, REJECTED
from tessera.data.bazaar.histories import Histories, draw_times
from tessera.data.bazaar.world import World, stream

LOG_NAME = "bazaar.jsonl"
REASONS = (
    "not a JSON object",
    "field 'item' is missing",
    "field 'user' is empty",
    "field 'timestamp' is not a whole number of seconds",
    "field 'timestamp' is negative",
)


@dataclass
class LogBlock:
    """The lines of one chunk of users: readable ones, unreadable ones, and how many there are in all."""

    interactions: pa.Table
    rejected: pa.Table
    lines: int


def user_ids(users: np.ndarray) -> pa.Array:
    """The shop's own user ids, zero-padded."""
    digits = pc.utf8_lpad(pa.array(users).cast(pa.string()), 8, "0")
    return pc.binary_join_element_wise("u", digits, "")


def item_ids(world: World, items: np.ndarray) -> pa.Array:
    """The shop's own item ids."""
    return pa.array(world.raw_ids(), pa.string()).take(pa.array(items))


def write_log(world: World, histories: Histories, chunk: int, first_line: int) -> LogBlock:
    """The lines of a chunk; the first one gets the number `first_line` (from 1)."""
    settings = world.settings
    generator = stream(settings.seed, "log", chunk)
    steps = np.arange(histories.items.shape[1])
    who, step = np.nonzero(steps < histories.length[:, None])
    events = len(who)
    times = draw_times(histories, generator)[who, step]
    ratings = np.clip(np.rint(generator.normal(4.2, 0.8, events)), 1, 5)
    order = np.lexsort((step, histories.user[who], times))
    # line kinds in the log's order: a readable row, perhaps itself again, perhaps an unreadable line
    twice = generator.random(events) < settings.duplicated
    broken = generator.random(events) < settings.malformed
    readable = np.repeat(order, 1 + twice)
    ends = np.cumsum(1 + twice + broken)
    number = np.arange(len(readable)) + np.repeat(np.cumsum(broken) - broken, 1 + twice)
    users = histories.user[who]
    items = histories.items[who, step]
    interactions = pa.table(
        [
            user_ids(users[readable]),
            item_ids(world, items[readable]),
            pa.array(times[readable]),
            pa.array(ratings[readable], pa.float32()),
            pa.nulls(len(readable), pa.string()),
            pa.array(first_line - 1 + number),
        ],
        schema=RAW_INTERACTIONS,
    )
    chosen = order[broken]
    rejected = _unreadable(
        user_ids(users[chosen]).to_pylist(),
        item_ids(world, items[chosen]).to_pylist(),
        times[chosen].tolist(),
        (first_line - 1 + ends[broken]).tolist(),
        generator.integers(0, len(REASONS), len(chosen)).tolist(),
    )
    return LogBlock(interactions, rejected, int(ends[-1]))


def _unreadable(users: list[str], items: list[str], times: list[int], lines: list[int], kinds: list[int]) -> pa.Table:
    """Broken copies of good lines, each in one of the ways of `REASONS`."""
    texts = []
    for user, item, time, kind in zip(users, items, times, kinds, strict=True):
        entry: dict[str, object] = {"user": user, "item": item, "timestamp": time}
        if kind == 1:
            del entry["item"]
        elif kind == 2:
            entry["user"] = ""
        elif kind == 3:
            entry["timestamp"] = "yesterday"
        elif kind == 4:
            entry["timestamp"] = -time
        text = json.dumps(entry)
        texts.append(text[: len(text) // 2] if kind == 0 else text)
    reasons = [REASONS[kind] for kind in kinds]
    return pa.table([pa.array([LOG_NAME] * len(lines), pa.string()), lines, reasons, texts], schema=REJECTED)
