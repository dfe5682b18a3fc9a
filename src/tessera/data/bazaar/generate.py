"""Write the demo world: the raw tables that any source gives, its pictures, and the truth behind them.

Users are drawn and written a chunk at a time: memory does not grow with their number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.artifacts.files import atomic, write_json
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.places import near
from tessera.artifacts.tables import (
    CLICK_TRUTH,
    LATENTS,
    RAW_INTERACTIONS,
    RAW_ITEMS,
    REJECTED,
    TRUTH,
    metadata,
    write_table,
)
from tessera.data.bazaar import lifelong
from tessera.data.bazaar.histories import CHUNK, Histories, Sampler, draw_histories
from tessera.data.bazaar.log import item_ids, user_ids, write_log
from tessera.data.bazaar.pictures import draw_pictures
from tessera.data.bazaar.text import write_texts
from tessera.data.bazaar.world import INTERESTS, World, build_world
from tessera.data.picture_stamp import write_stamp
from tessera.settings.sources.bazaar import BazaarSource


def generate(settings: BazaarSource, folder: str | Path, max_rejected: float = 1.0) -> dict[str, Any]:
    """Write the world into `folder` and return the counts that also stand in `ingest.json`.

    Files: interactions, items, rejected, latents and truth (.parquet), ingest.json, pictures.json,
    images/<raw id>.png.

    Raises:
        ValueError: more lines are malformed than `max_rejected` allows; the files are written all the same.
    """
    folder = Path(folder)
    world = build_world(settings)
    made_by = world_settings(settings)
    _write_items(world, folder, made_by)
    counts = (_write_users if settings.lifelong is None else _write_lives)(world, folder, made_by)
    lines = counts["interactions"] + counts["rejected"]
    share = counts["rejected"] / lines
    log.info("%s lines, %s rejected (%.2f %%)", f"{lines:,}", f"{counts['rejected']:,}", 100 * share)
    if share > max_rejected:
        raise ValueError(
            f"{folder / 'rejected.parquet'}: {counts['rejected']} of {lines} lines ({share:.1%}) are unreadable, "
            f"cleaning.max_rejected allows {max_rejected:.1%}; lower `malformed` or raise max_rejected"
        )
    write_json(folder / "ingest.json", counts)
    write_stamp(folder / "pictures.json", str(folder / "images"))
    return counts


def world_settings(settings: BazaarSource) -> dict[str, Any]:
    """The settings that make the world: those of the source alone."""
    return settings.model_dump(mode="json", exclude={"cleaning", "split", "catalogue"})


def _write_items(world: World, folder: Path, made_by: dict[str, Any]) -> None:
    texts = write_texts(world)
    with Progress("pictures", world.items, "items") as progress:
        images = []
        for name in draw_pictures(world, folder / "images"):
            images.append(name)
            progress.update()
    items = pa.table(
        [world.raw_ids(), [title for title, _ in texts], [list(attributes.items()) for _, attributes in texts], images],
        schema=RAW_ITEMS,
    )
    root = near(folder / "images", folder.parent)
    write_table(folder / "items.parquet", items, "raw_items", made_by, image_root=root)
    every, textual, shown = (list(world.one_hot(view)) for view in ("all", "text", "image"))
    shown = [row if has else None for row, has in zip(shown, world.has_image, strict=True)]
    latents = pa.table([world.raw_ids(), every, textual, shown], schema=LATENTS)
    write_table(folder / "latents.parquet", latents, "latents", made_by)


def _write_users(world: World, folder: Path, made_by: dict[str, Any]) -> dict[str, Any]:
    sampler = Sampler(world)
    users = world.settings.users
    lines, rejected = 0, 0
    reasons: Counter[str] = Counter()
    with (
        _stream_table(folder / "interactions.parquet", RAW_INTERACTIONS, "raw_interactions", made_by) as write_rows,
        _stream_table(folder / "rejected.parquet", REJECTED, "rejected", made_by) as write_rejected,
        _stream_table(folder / "truth.parquet", TRUTH, "truth", made_by) as write_truth,
        Progress("histories", users, "users") as progress,
    ):
        for chunk in range(-(-users // CHUNK)):
            histories = draw_histories(sampler, chunk, record=chunk * CHUNK < world.settings.oracle_users)
            block = write_log(world, histories, chunk, first_line=lines + 1)
            write_rows.write_table(block.interactions)
            write_rejected.write_table(block.rejected)
            if histories.tastes is not None:
                write_truth.write_table(_truth_table(world, histories))
            lines += block.lines
            rejected += block.rejected.num_rows
            reasons.update(block.rejected.column("reason").to_pylist())
            progress.update(len(histories.user))
    return _counts(world, lines, rejected, reasons)


def _counts(world: World, lines: int, rejected: int, reasons: Counter[str]) -> dict[str, Any]:
    return {
        "interactions": lines - rejected,
        "items": world.items,
        "items_told": world.items,
        "items_repeated": 0,
        "images": int(world.has_image.sum()),
        "rejected": rejected,
        "rejected_interactions": rejected,
        "reasons": dict(reasons),
    }


def _write_lives(world: World, folder: Path, made_by: dict[str, Any]) -> dict[str, Any]:
    """Users of a lifelong world, a chunk at a time."""
    settings = world.settings.lifelong
    assert settings is not None
    sampler = lifelong.LifelongSampler(world, settings)
    users, lines = world.settings.users, 0
    with (
        _stream_table(folder / "interactions.parquet", RAW_INTERACTIONS, "raw_interactions", made_by) as write_rows,
        _stream_table(folder / "rejected.parquet", REJECTED, "rejected", made_by),
        _stream_table(folder / "truth.parquet", CLICK_TRUTH, "click_truth", made_by) as write_truth,
        Progress("lives", users, "users") as progress,
    ):
        for chunk in range(-(-users // lifelong.CHUNK)):
            lives = sampler.lives(chunk)
            rows = lifelong.log_table(world, lives, lines)
            write_rows.write_table(rows)
            write_truth.write_table(lifelong.truth_table(world, lives, settings))
            lines += rows.num_rows
            progress.update(min(users - chunk * lifelong.CHUNK, lifelong.CHUNK))
    return _counts(world, lines, 0, Counter())


def _truth_table(world: World, histories: Histories) -> pa.Table:
    """What stood behind each step of the users that the oracle knows, ordered by user and position."""
    assert histories.tastes is not None
    assert histories.weights is not None
    assert histories.times is not None
    known = (histories.user < world.settings.oracle_users)[:, None] & (
        np.arange(histories.items.shape[1]) < histories.length[:, None]
    )
    who, step = np.nonzero(known)
    order = np.lexsort((step, histories.user[who]))
    who, step = who[order], step[order]
    return pa.table(
        [
            user_ids(histories.user[who]),
            item_ids(world, histories.items[who, step]),
            pa.array(step, pa.int32()),
            pa.array(histories.times[who, step]),
            pa.FixedSizeListArray.from_arrays(pa.array(histories.tastes[who, step].ravel()), INTERESTS),
            pa.FixedSizeListArray.from_arrays(pa.array(histories.weights[who, step].ravel()), INTERESTS),
        ],
        schema=TRUTH,
    )


@contextmanager
def _stream_table(path: Path, schema: pa.Schema, kind: str, made_by: dict[str, Any]) -> Iterator[pq.ParquetWriter]:
    """An artifact written a piece at a time, atomically."""
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema.with_metadata(metadata(kind, made_by)), compression="zstd") as writer,
    ):
        yield writer


def read_settings(described: dict[str, Any]) -> BazaarSource:
    """The settings of a world from the metadata of one of its files."""
    return BazaarSource.model_validate_json(json.dumps(described["settings"]))
