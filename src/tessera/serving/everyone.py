"""Lists for all users of a dataset, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tessera.artifacts.files import atomic, file_digest
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import RECOMMENDATIONS, metadata
from tessera.data.dataset import Dataset, load_dataset, read_raw_ids
from tessera.data.id_list import read_ids
from tessera.data.identifiers import id_text, positions_in
from tessera.evaluation.judge import Scorer, reads_times, users_at_once
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.serving.catalogue import Catalogue, Mask, read_catalogue
from tessera.serving.folder import RunFiles
from tessera.serving.lists import Lists, rank
from tessera.settings.kinds import load
from tessera.settings.recommend import Recommend
from tessera.settings.runs import Run

ROWS_A_GROUP = 1 << 17
"""Rows that are held before they are written as a row group."""


def allowed_items(catalogue: Catalogue, settings: Recommend, stock: Path | None) -> Mask | None:
    """(items + 1,) what may be recommended; None where nothing is said.

    Raises:
        ValueError: nothing is left, or no item has the attribute.
    """
    if stock is None and settings.attribute is None:
        return None
    mask = np.ones(len(catalogue) + 1, bool)
    mask[0] = False
    if stock is not None:
        ids = read_ids(stock, "item")
        try:
            chosen, unknown = catalogue.among(ids)
        except ValueError as error:
            raise ValueError(f"{stock}: {error}") from None
        if unknown:
            log.warning("%s: %d of %d: %s; left out", stock, len(unknown), len(ids), catalogue.unknown_message(unknown))
        mask &= chosen
    if settings.attribute is not None:
        mask &= catalogue.having(settings.attribute)
    if not mask.any():
        of = "recommend.attribute: no item" if stock is None else f"{stock}: no item of the list"
        raise ValueError(f"{of} has all of {settings.attribute}")
    log.info("%s of %s items may be recommended", f"{int(mask.sum()):,}", f"{len(catalogue):,}")
    return mask


def chosen_users(raw_ids: list[str], path: Path | None) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Raw and dense ids of the users who get a list; of a file its order, 0 where the dataset does not know one."""
    if path is None:
        return raw_ids[1:], np.arange(1, len(raw_ids), dtype=np.int32)
    wanted = read_ids(path, "user")
    dense = np.array(positions_in(map(id_text, wanted), raw_ids[1:]), np.int32) + 1
    if unknown := [raw for raw, number in zip(wanted, dense, strict=True) if not number]:
        some = ", ".join(map(repr, unknown[:5])) + (" ..." if len(unknown) > 5 else "")
        log.warning("%s: %d of %d users have no history (%s): popular items", path, len(unknown), len(wanted), some)
    return wanted, dense


def _rows(dataset: Dataset, users: npt.NDArray[np.int32]) -> list[slice]:
    """Where everything stands that is known of users, oldest first; nothing of user 0."""
    offsets = dataset.offsets
    return [slice(offsets[user - 1], offsets[user]) if user else slice(0, 0) for user in users.tolist()]


def _table(lists: Lists, raw_users: list[str], catalogue: Catalogue) -> pa.Table:
    """A row an item of a list."""
    rows, positions = np.nonzero(lists.items)
    items = lists.items[rows, positions].tolist()
    columns = {
        "user": [raw_users[row] for row in rows.tolist()],
        "rank": positions + 1,
        "item": [catalogue.raw_ids[item] for item in items],
        "title": [catalogue.titles[item] for item in items],
        "score": lists.scores[rows, positions],
        "popular": lists.popular[rows],
    }
    return pa.table(columns).cast(RECOMMENDATIONS)


def _blocks(
    scorer: Scorer,
    catalogue: Catalogue,
    dataset: Dataset,
    users: tuple[list[str], npt.NDArray[np.int32]],
    settings: Recommend,
    allowed: Mask | None,
) -> Iterator[pa.Table]:
    raw, dense = users
    size = users_at_once(len(catalogue))
    k = min(settings.k, len(catalogue))
    with Progress("users", len(raw), "users") as progress:
        for start in range(0, len(raw), size):
            part = dense[start : start + size]
            rows = _rows(dataset, part)
            histories = [dataset.items[place] for place in rows]
            times = [dataset.seconds[place] for place in rows] if reads_times(scorer) else None
            lists = rank(scorer, catalogue, histories, k, settings.seen, allowed, part, times)
            yield _table(lists, raw[start : start + size], catalogue)
            progress.update(len(part))


def recommend_everyone(
    run: Run,
    settings: Recommend,
    model: Path,
    data: Path,
    inputs: RunInputs,
    stock: Path | None,
    users: Path | None,
    output: Path,
    csv: Path,
) -> None:
    """Write lists for the users of a dataset: `output` (Parquet) and the same as `csv`, both whole or not at all.

    In memory at once: the interactions, ids and titles of the dataset, the scores of `users_at_once` users, and
    `ROWS_A_GROUP` rows.

    Args:
        stock: the stock list, if there is one.
        users: the list of users, if there is one.
    Raises:
        ValueError: a list names nothing that is known, no item has the attribute, or new items cannot be placed.
        ArtifactError: the weights are of another catalogue.
    """
    if not (run.mask_seen or settings.seen):
        log.warning(
            "%s was judged with seen items among those that are ranked (evaluation.mask_seen: false), and these lists "
            "leave them out; with recommend.seen: true they hold what was judged",
            run.path,
        )
    catalogue = read_catalogue(data / "items.parquet")
    scorer = load_scorer(model, run, catalogue.popularity, inputs)
    if settings.new_items is not None:
        # by name: what reads items is part of the code of this job only where there are new ones
        add_file = load("tessera.serving.new_items:add_file")
        files = RunFiles(model.parent, run, data / "items.parquet", inputs)
        catalogue = add_file(scorer, catalogue, files, settings.new_items)
    allowed = allowed_items(catalogue, settings, stock)
    chosen = chosen_users(read_raw_ids(data, "users"), users)
    dataset = load_dataset(data)
    description = {"run": run.path, "recommend": settings.model_dump(mode="json")}
    schema = RECOMMENDATIONS.with_metadata(metadata("recommendations", description, {"model": file_digest(model)}))
    with ExitStack() as stack:
        parquet_path, csv_path = (stack.enter_context(atomic(path)) for path in (output, csv))
        parquet = stack.enter_context(pq.ParquetWriter(parquet_path, schema, compression="zstd"))
        text = stack.enter_context(pa_csv.CSVWriter(csv_path, RECOMMENDATIONS))
        for table in _groups(_blocks(scorer, catalogue, dataset, chosen, settings, allowed)):
            parquet.write_table(table.replace_schema_metadata(schema.metadata))
            text.write_table(table)


def _groups(blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Blocks joined until they make a row group."""
    held: list[pa.Table] = []
    for block in blocks:
        held.append(block)
        if sum(len(one) for one in held) >= ROWS_A_GROUP:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()
