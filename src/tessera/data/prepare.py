"""The second stage: the raw log becomes a dataset - cleaned, split, numbered - and its statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from tessera.artifacts.files import file_digest, read_json, write_json
from tessera.artifacts.logs import log
from tessera.artifacts.places import far, is_near, near
from tessera.artifacts.tables import describe, read_table, write_table
from tessera.data.cleaning import Funnel, cap_histories, filter_rows, k_core
from tessera.data.dataset import SPLITS, TEST, TRAIN, VALID, Ints, Longs
from tessera.data.rows import LogError, Mask, Rows, natural_order, read_rows
from tessera.data.sessions import SHORTEST, cut_sessions
from tessera.data.splits import (
    DROPPED,
    Codes,
    cuts,
    ends,
    given,
    given_parts,
    global_temporal,
    leave_one_out,
    none,
    parts_of_sessions,
    sessions,
)  # fmt: skip
from tessera.data.statistics import describe_items, describe_rows
from tessera.settings.datasets import Cleaning, Core, GivenSplit, GlobalTemporal, NoSplit, SessionSplit, Split
from tessera.settings.sources.base import read_prepare_settings

MOST = 0.5
"""Above this share of the items a common title is told."""


def prepare(raw: Path, folder: Path, settings: Mapping[str, Any], judged: bool = True) -> None:
    """Write `interactions`, `items`, `users` (.parquet) and `stats.json` into `folder`.

    Args:
        raw: the folder that ingest wrote.
        settings: what `prepare_settings` of a dataset gives.
        judged: whether the test users of the split are used, so that there must be some (not for clicks).
    Raises:
        LogError: the settings ask for what the log does not have, or leave nothing of it, or no test user.
    """
    dataset = read_prepare_settings(settings)
    path = raw / "interactions.parquet"
    split_by = dataset.split
    by_part = isinstance(split_by, GivenSplit) or (isinstance(split_by, NoSplit) and split_by.by_part)
    rows, user_ids, item_ids = read_rows(path, by_part)
    funnel = Funnel()
    rows = filter_rows(funnel.count("read", rows), dataset.cleaning, funnel)
    if dataset.sessions is None:
        rows, split = core_and_split(rows, dataset.cleaning, dataset.split, funnel)
    else:
        rows, user_ids = cut_sessions(rows, user_ids, dataset.sessions, by_part, funnel)
        rows, split = core_and_split_sessions(rows, dataset.cleaning, dataset.split, funnel)
    if judged and not isinstance(split_by, NoSplit):
        _check_targets(rows, split, dataset.split)
    users, user_codes = _dense(rows.users)
    items, item_codes = _dense(rows.items)
    catalogue = [item_ids[i] for i in items]
    if dataset.catalogue == "all":
        catalogue, place = _whole(catalogue, raw / "items.parquet")
        item_codes = place[item_codes]
    rows = replace(rows, users=user_codes, items=item_codes)
    inputs = {"raw_interactions": file_digest(path), "raw_items": file_digest(raw / "items.parquet")}
    table, description = _interactions(rows, split), rows.clock.described()
    write_table(folder / "interactions.parquet", table, "interactions", settings, inputs, **description)
    raw_users = pa.table({"user": np.arange(1, len(users) + 1), "raw_id": [user_ids[i] for i in users]})
    write_table(folder / "users.parquet", raw_users, "users", settings, inputs)
    table = _items(raw / "items.parquet", catalogue)
    about = describe_items(table)
    _tell_items(table.num_rows, about)
    root = describe(raw / "items.parquet").get("image_root")
    if root is not None and is_near(root):  # another dataset's, where this one is trained on to the end
        root = near(far(root, raw.parent), folder.parent)
    write_table(folder / "items.parquet", table, "items", settings, inputs, image_root=root)
    stats = {
        **describe_rows(rows, split, len(catalogue)),
        **about,
        "texts": _cleaned_texts(raw / "ingest.json"),
        "funnel": funnel.steps,
        "rejected": _rejected(raw / "ingest.json"),
    }
    write_json(folder / "stats.json", stats)
    log.info("kept %(interactions)d interactions of %(users)d users and %(items)d items", stats["counts"])
    if len(catalogue) > len(items):
        log.info("%s of the items have no interaction: they train nothing", f"{len(catalogue) - len(items):,}")


def core_and_split(rows: Rows, cleaning: Cleaning, split: Split, funnel: Funnel) -> tuple[Rows, Codes]:
    """Core, longest histories and split of filtered rows; returns the rows kept and their split codes."""
    core = cleaning.core
    if core is not None and core.on == "all":
        rows = funnel.count(_told(core.users, core.items, "all rows"), rows.take(k_core(rows, core)))
    moments = cuts(rows.times, split, rows.clock) if isinstance(split, GlobalTemporal) else None
    by_source = isinstance(split, GivenSplit)
    if by_source:  # before rows go: what validates is held out, and stays what it is
        rows = replace(rows, given=given_parts(rows))
    if core is not None and core.on == "train":
        kept = k_core(rows, core, None if isinstance(split, NoSplit) else _train_part(rows, moments))
        rows = funnel.count(_told(core.users, core.items, "train rows"), rows.take(kept))
    if cleaning.max_history is not None:
        capped = _train_part(rows, moments) if by_source or moments is not None else None
        rows = rows.take(cap_histories(rows, cleaning.max_history, capped))
        funnel.count(f"most recent {cleaning.max_history} a user", rows)
    if isinstance(split, GlobalTemporal):
        assert moments is not None
        codes = global_temporal(rows, moments, split)
    elif isinstance(split, NoSplit):
        codes = none(rows)
    else:
        codes = given(rows) if isinstance(split, GivenSplit) else leave_one_out(rows)
    kept = codes != DROPPED
    if not kept.all():
        rows, codes = rows.take(kept), codes[kept]
        funnel.count("rows after the last target dropped", rows)
    return rows, codes


def core_and_split_sessions(rows: Rows, cleaning: Cleaning, split: Split, funnel: Funnel) -> tuple[Rows, Codes]:
    """As `core_and_split`, of rows whose users are sessions; none is divided, and none has fewer than two rows.

    A core that counts training rows removes nothing of the sessions that are held out: what is rare is judged as cold.
    """

    def parts() -> Codes:
        if isinstance(split, NoSplit):
            return none(rows)
        moments = cuts(ends(rows), split, rows.clock) if isinstance(split, SessionSplit) else None
        return parts_of_sessions(rows, moments)

    core = cleaning.core or Core(users=0, items=0)
    core = core.model_copy(update={"users": max(core.users, SHORTEST)})
    step = _told(core.users, core.items, f"{core.on} rows")
    if core.on == "all":
        rows = funnel.count(step, rows.take(k_core(rows, core)))
        part = parts()
    else:
        part = parts()
        kept = np.bincount(rows.users)[rows.users] >= core.users
        trained = part == TRAIN
        if trained.any():
            kept[trained] = k_core(rows.take(trained), core)
        rows, part = funnel.count(step, rows.take(kept)), part[kept]
    if cleaning.max_history is not None:
        kept = cap_histories(rows, cleaning.max_history, part == TRAIN)
        rows, part = rows.take(kept), part[kept]
        funnel.count(f"most recent {cleaning.max_history} a session", rows)
    return rows, part if isinstance(split, NoSplit) else sessions(rows, part)


def _check_targets(rows: Rows, codes: Codes, split: Split) -> None:
    """Whether there is a test user at all; that nobody validates is only said, for heuristics need none."""
    needs = {
        "leave_one_out": "no user has three interactions (one to train, one to validate, one to test)",
        "global_temporal": "no user with an interaction after the last cut has an earlier one",
        "sessions": "no session that ends after the last cut is left",
        "given": "no user with a row that the source marks as test has a row before it",
    }
    if not (codes == TEST).any():
        longest = int(np.bincount(rows.users).max())
        raise LogError(
            f"there is no test user under split {split.kind}: {needs[split.kind]}; after cleaning there are "
            f"{len(np.unique(rows.users)):,} users with {longest} interactions at most"
        )
    if not (codes == VALID).any():
        log.warning("no user validates under split %s: nothing but heuristics can be trained", split.kind)


def _dense(codes: Ints) -> tuple[Longs, Ints]:
    """The codes that occur, and each row's place among them."""
    present = np.bincount(codes) > 0
    rank = (np.cumsum(present) - 1).astype(np.int32)
    return np.flatnonzero(present), rank[codes]


def _whole(kept: list[str], path: Path) -> tuple[list[str], Ints]:
    """Raw ids of the kept items and of all others that are told of, in natural order, and where the kept ones stand."""
    described = read_table(path, "raw_items", ["raw_id"]).column("raw_id").to_pylist()
    every = pl.Series(list(dict.fromkeys([*kept, *described])), dtype=pl.String)
    order = natural_order(every)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return every.gather(order).to_list(), place[: len(kept)]


def _told(users: int, items: int, which: str) -> str:
    return f"core: users {users}, items {items}, counted on {which}"


def _train_part(rows: Rows, moments: tuple[int, int] | None) -> Mask:
    """Rows that can only train: before the first cut, or not marked by the source."""
    if moments is None:
        marked: Mask = np.isin(rows.given, (SPLITS.index("valid"), SPLITS.index("test")), invert=True)
        return marked
    assert rows.times is not None
    before: Mask = rows.times < moments[0]
    return before


def _interactions(rows: Rows, split: Codes) -> pa.Table:
    timestamps = pa.nulls(len(rows), pa.int64()) if rows.times is None else pa.array(rows.times)
    return pa.table(
        {
            "user": rows.users + 1,
            "item": rows.items + 1,
            "timestamp": timestamps,
            "position": rows.positions(),
            "rating": pa.array(rows.ratings, from_pandas=True),
            "split": pa.DictionaryArray.from_arrays(pa.array(split, pa.int8()), list(SPLITS)).cast(pa.string()),
        }
    )


def _items(path: Path, raw_ids: list[str]) -> pa.Table:
    """The raw items that are kept, numbered 1.. in the order of `raw_ids`; those without a word get an empty row."""
    table = read_table(path, "raw_items", ["raw_id", "title", "attributes", "image"])
    place = {raw_id: row for row, raw_id in enumerate(table.column("raw_id").to_pylist())}
    rows = pa.array([place.get(raw_id) for raw_id in raw_ids], pa.int64())
    columns = table.select(["title", "attributes", "image"]).combine_chunks().take(rows)
    return pa.table(
        {
            "item": pa.array(np.arange(1, len(raw_ids) + 1), pa.int32()),
            "raw_id": pa.array(raw_ids, pa.string()),
            **{name: columns.column(name) for name in ("title", "attributes", "image")},
        }
    )


def _rejected(path: Path) -> dict[str, Any]:
    """What ingest counted: rows of the log and of files of items, the share of the log's, and every reason."""
    counts = read_json(path)
    rows = counts["rejected"]
    of_log = counts.get("rejected_interactions", rows)
    return {
        "rows": rows,
        "interactions": of_log,
        "share": of_log / max(of_log + counts["interactions"], 1),
        "reasons": counts["reasons"],
    }


def _tell_items(items: int, about: Mapping[str, Any]) -> None:
    """Warn of a title that most items share: it tells them apart no more than none."""
    common = about["common_title"]
    if common is not None and items > 2 and common["share"] > MOST:
        title, count = common["title"][:80], common["items"]
        log.warning("%s of %s items have the same title, %r", f"{count:,}", f"{items:,}", title)


def _cleaned_texts(path: Path) -> dict[str, int]:
    """How many texts of the raw items lost markup or were emptied or cut, as ingest counted them."""
    counts: dict[str, int] = read_json(path).get("texts", {}) if path.is_file() else {}
    return counts
