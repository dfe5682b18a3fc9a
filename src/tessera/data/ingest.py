"""The first stage: files of a source become the raw log, raw items and the rows that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tessera.artifacts.files import atomic, write_json
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import RAW_ITEMS, metadata
from tessera.data.files import DataFileError, find
from tessera.data.identifiers import id_text, twin
from tessera.data.joins import Join
from tessera.data.log import Item, RawLog, open_log
from tessera.data.picture_folder import PictureFolder
from tessera.data.picture_stamp import write_stamp
from tessera.data.sources.base import source
from tessera.data.sources.csv_rows import whole
from tessera.data.text import LONGEST, clean, counted
from tessera.settings.sources.base import FileSource, read_ingest_settings

REFUSED = "refused"
_CHUNK = 20_000
LONGEST_KEY = 200
"""Most characters of an attribute's name."""


def ingest(settings: Mapping[str, Any], folder: Path) -> None:
    """Write `interactions`, `items`, `rejected` (.parquet), `ingest.json` and `pictures.json` into `folder`.

    Args:
        settings: what `ingest_settings` of a dataset gives.
    Raises:
        FileNotFoundError: a file of the config is not there.
        DataFileError: a file is not what the config says, or what it tells meets no item of the log.
        RejectedError: too many rows are unreadable; they are kept in `refused.parquet`, their counts in `refused.json`.
    """
    dataset, largest_share = read_ingest_settings(settings)
    for kept in (folder / f"{REFUSED}.parquet", folder / f"{REFUSED}.json"):
        kept.unlink(missing_ok=True)
    reader = source(dataset)
    with open_log(folder / "interactions.parquet", dict(settings)) as raw, _kept_when_refused(raw, folder):
        reader.read_interactions(dataset, raw)
        raw.finish()
        raw.check_rejected(raw.rows, largest_share)
        raw.whole = dataset.catalogue == "all"
        if not raw.rows:
            why = f"; all {raw.reasons.total():,} rows are unreadable ({raw.told_reasons()})" if raw.reasons else ""
            raise DataFileError(f"{dataset.path}: holds no interactions{why}")
    interactions = raw.reasons.total()
    with _kept_when_refused(raw, folder):
        with counted() as texts:
            items = _Items(dataset, raw)
            items.write(folder / "items.parquet", reader.read_items(dataset, raw), dict(settings))
        raw.check_rejected(max(raw.described, items.read), largest_share, interactions)
        items.check_told()
    _tell_texts(texts)
    raw.write_rejected(folder / "rejected.parquet")
    counts = {
        "interactions": raw.rows,
        "items": len(raw.items),
        "items_told": items.described,
        "items_repeated": items.repeated,
        "items_met_by_nobody": items.unmet,
        "items_without_id": items.nameless,
        "images": items.images,
        "pictures": items.picture_counts,
        "texts": dict(texts),
        **_rejected(raw),
        "rejected_interactions": interactions,
    }
    write_json(folder / "ingest.json", counts)
    write_stamp(folder / "pictures.json", items.root)
    log.info("read %s interactions of %s items", f"{raw.rows:,}", f"{len(raw.items):,}")
    if raw.whole:
        log.info("%s more items are told of and met by nobody", f"{items.unmet:,}")
    if items.nameless:
        log.warning("%s rows of files of items have no id and are left out", f"{items.nameless:,}")
    raw.tell_rejected(folder / "rejected.parquet")


def _rejected(raw: RawLog) -> dict[str, Any]:
    """How many rows are rejected, how many of them are kept to be looked at, and why."""
    return {"rejected": raw.reasons.total(), "rejected_kept": raw.kept, "reasons": dict(raw.reasons)}


@contextmanager
def _kept_when_refused(raw: RawLog, folder: Path) -> Iterator[None]:
    """Keep the rejected rows of a refused source under a name that a failed job does not take away."""
    try:
        yield
    except (ValueError, OSError):
        if raw.reasons:
            raw.write_rejected(folder / f"{REFUSED}.parquet")
            write_json(folder / f"{REFUSED}.json", {"interactions": raw.rows, **_rejected(raw)})
            log.error("the rejected rows are kept in %s", folder / f"{REFUSED}.parquet")
        raise


def _tell_texts(texts: Mapping[str, int]) -> None:
    """Say which texts did not stay as they were."""
    labels = {
        "were nothing but markup or code and are left empty": "emptied",
        "lost markup": "changed",
        f"were longer than {LONGEST:,} characters and lost their end": "cut",
    }
    for what, key in labels.items():
        titles, others = texts.get(f"titles_{key}", 0), texts.get(f"texts_{key}", 0)
        if titles or others:
            level = log.warning if titles and key == "emptied" else log.info
            level("%s titles and %s other texts %s", f"{titles:,}", f"{others:,}", what)


class _Items:
    """Joins what the source and the items file tell of the items that the log knows, or of all of them."""

    def __init__(self, dataset: FileSource, raw: RawLog) -> None:
        self.raw = raw
        self.read = self.described = self.repeated = self.images = self.unmet = self.nameless = 0
        self.picture_counts: dict[str, int] = {}
        self._empty: list[str] = []
        self._of_source = Join(raw.items)
        self._numbered = raw.whole and all(twin(raw_id) and not raw_id.endswith(".0") for raw_id in raw.items)
        """Whether strangers lose a `.0`, too: all ids of the log are whole numbers."""
        self._source, self._path = _described_in(dataset), dataset.path
        self._more = self._items_file(dataset)
        self._owners = raw.items | self._more.keys() if raw.whole else raw.items
        """Items that may have a picture of their own name."""
        self._pictured = Join(self._owners)
        self.pictures = PictureFolder(find(dataset.images), self._owners) if dataset.images else None

    @property
    def root(self) -> str | None:
        """The folder of pictures."""
        return str(self.pictures.folder) if self.pictures is not None else None

    def check_told(self) -> None:
        """Refuse files of items that hold none; after too many unreadable rows, which say why.

        Raises:
            DataFileError: there is one.
        """
        if self._empty:
            raise DataFileError("; ".join(self._empty))

    def _items_file(self, dataset: FileSource) -> dict[str, Item]:
        if dataset.items is None:
            return {}
        from tessera.data.sources.columns import read_items_file

        more: dict[str, Item] = {}
        join = Join(self.raw.items)
        for item in self._known(self._named(read_items_file(dataset.items, self.raw)), join):
            self.repeated += item.raw_id in more
            more.setdefault(item.raw_id, item)
        if not join.rows:
            self._empty.append(f"{dataset.items.path}: holds no item with an id in {dataset.items.id!r} (items.id)")
        named = f"; is {dataset.items.id!r} (items.id) the column of the log's ids?"
        join.tell(dataset.items.path, "items of the log", DataFileError, named)
        return more

    def _known(self, items: Iterator[Item], join: Join) -> Iterator[Item]:
        """The items that the log knows, under the log's ids, or all of them; `join` counts who meets.

        A whole number that stands in the other way in the log (`1.0` and `1`) comes last, and only where no item has
        the very id of the log.
        """
        exact: set[str] = set()
        others: dict[str, Item] = {}
        for item in items:
            self.read += 1
            other = twin(item.raw_id)
            if item.raw_id not in self.raw.items and other is not None and other in self.raw.items:
                self.repeated += other in others
                others.setdefault(other, replace(item, raw_id=other))
            elif join.meet(item.raw_id):
                exact.add(item.raw_id)
                yield item
            elif self.raw.whole:
                yield item
        yield from (item for raw_id, item in others.items() if raw_id not in exact and join.meet(raw_id))

    def _named(self, items: Iterator[Item]) -> Iterator[Item]:
        """Items by the rule of ids, whatever file they stand in; those without one are counted."""
        for item in items:
            raw_id = id_text(item.raw_id)
            if raw_id is None:
                self.read += 1
                self.nameless += 1
                continue
            if self._numbered and (other := twin(raw_id)) is not None and other not in self.raw.items:
                raw_id = raw_id.removesuffix(".0")
            yield item if raw_id == item.raw_id else replace(item, raw_id=raw_id)

    def _joined(self, own: Iterator[Item]) -> Iterator[Item]:
        """Known items, each once: the source's words first, then those of the items file."""
        seen: set[str] = set()
        own = self._named(own)
        if self.raw.whole and self.pictures is not None:  # whose pictures are whose is known when all items are
            items = list(own)
            self._owners.update(item.raw_id for item in items)
            own = iter(items)
        for item in self._known(own, self._of_source):
            if item.raw_id in seen:
                self.repeated += 1
                continue
            seen.add(item.raw_id)
            more = self._more.get(item.raw_id)
            if more is not None:
                item.title = item.title or more.title
                item.attributes |= {k: v for k, v in more.attributes.items() if k not in item.attributes}
                item.image_names += more.image_names
            yield item
        if self._source is not None and not self._of_source.rows:
            self._empty.append(f"{self._source}: holds no items")
        self._of_source.tell(self._source or self._path, "items of the log", DataFileError)
        yield from (item for raw_id, item in self._more.items() if raw_id not in seen)
        seen.update(self._more)
        if self.pictures is not None:
            yield from (Item(raw_id) for raw_id in sorted(self.raw.items - seen) if self._picture(Item(raw_id)))

    def _picture(self, item: Item) -> str | None:
        return self.pictures.find(item.raw_id, item.image_names) if self.pictures is not None else None

    def _tell_pictures(self) -> None:
        """Say how many items have one, by which files; none of them is an error."""
        if self.pictures is None:
            return
        self.picture_counts = self.pictures.tell()
        join, used = self._pictured, set(self._pictured.met)
        for name in self.pictures.left:
            join.meet(name)
        join.met = used
        origin = f"{self.pictures.folder} (images)"
        wanted = "items" if self.raw.whole else "items of the log"
        join.tell(origin, wanted, DataFileError, "; pictures are named by raw item id: <id>.jpg")

    def write(self, path: Path, own: Iterator[Item], settings: dict[str, Any]) -> None:
        """Write the raw items in chunks."""
        schema = RAW_ITEMS.with_metadata(metadata("raw_items", settings, image_root=self.root))
        with (
            atomic(path) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
            Progress("reading items", unit="items") as progress,
        ):
            chunk: list[dict[str, Any]] = []
            for item in self._joined(own):
                chunk.append(self._row(item))
                if len(chunk) == _CHUNK:
                    writer.write_table(pa.Table.from_pylist(chunk, RAW_ITEMS))
                    progress.update(len(chunk))
                    chunk.clear()
            writer.write_table(pa.Table.from_pylist(chunk, RAW_ITEMS))
            self._tell_pictures()

    def _row(self, item: Item) -> dict[str, Any]:
        image = self._picture(item)
        self.unmet += item.raw_id not in self.raw.items
        texts = ((clean(whole(key))[:LONGEST_KEY], clean(whole(value))) for key, value in item.attributes.items())
        self.described += 1
        if image is not None:
            self.images += 1
            self._pictured.meet(item.raw_id)
        return {
            "raw_id": item.raw_id,
            "title": clean(whole(item.title or ""), "title") or None,
            "attributes": [(key, value) for key, value in texts if key and value],
            "image": image,
        }


def _described_in(dataset: FileSource) -> str | None:
    """The file of its own that a source reads its items from, as the config names it."""
    keys = ("metadata", "businesses", "items_file", "films")
    return next((name for key in keys if (name := getattr(dataset, key, None))), None)
