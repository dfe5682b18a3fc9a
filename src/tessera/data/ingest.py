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
from tessera.data.identifiers import twin
from tessera.data.log import Item, RawLog, open_log
from tessera.data.sources.base import source
from tessera.data.sources.csv_rows import whole
from tessera.data.text import clean
from tessera.settings.sources.base import FileSource, read_ingest_settings

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
REFUSED = "refused"
_CHUNK = 20_000


def ingest(settings: Mapping[str, Any], folder: Path) -> None:
    """Write `interactions`, `items`, `rejected` (.parquet) and `ingest.json` into `folder`.

    Args:
        settings: what `ingest_settings` of a dataset gives.
    Raises:
        FileNotFoundError: a file of the config is not there.
        DataFileError: a file is not what the config says.
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
        if not raw.rows:
            raise DataFileError(f"{dataset.path}: holds no interactions")
    interactions = raw.reasons.total()
    with _kept_when_refused(raw, folder):
        items = _Items(dataset, raw)
        items.write(folder / "items.parquet", reader.read_items(dataset, raw), dict(settings))
        raw.check_rejected(max(raw.described, items.read), largest_share, interactions)
    raw.write_rejected(folder / "rejected.parquet")
    counts = {
        "interactions": raw.rows,
        "items": len(raw.items),
        "items_told": items.told,
        "items_repeated": items.repeated,
        "images": items.images,
        **_rejected(raw),
        "rejected_interactions": interactions,
    }
    write_json(folder / "ingest.json", counts)
    log.info("read %s interactions of %s items", f"{raw.rows:,}", f"{len(raw.items):,}")
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


class _Items:
    """Joins what the source and the items file tell of the items that the log knows."""

    def __init__(self, dataset: FileSource, raw: RawLog) -> None:
        self.raw = raw
        self.read = self.told = self.repeated = self.images = 0
        self.image_root = find(dataset.images) if dataset.images else None
        self._pictures = _pictures(self.image_root) if self.image_root else {}
        self._more = self._items_file(dataset)

    def _items_file(self, dataset: FileSource) -> dict[str, Item]:
        if dataset.items is None:
            return {}
        from tessera.data.sources.columns import read_items_file

        more: dict[str, Item] = {}
        for item in self._known(read_items_file(dataset.items, self.raw)):
            self.repeated += item.raw_id in more
            more.setdefault(item.raw_id, item)
        return more

    def _known(self, told: Iterator[Item]) -> Iterator[Item]:
        """The items that the log knows, under the log's ids.

        A whole number that stands in the other way in the log (`1.0` and `1`) comes last, and only where no item has
        the very id of the log.
        """
        exact: set[str] = set()
        others: dict[str, Item] = {}
        for item in told:
            self.read += 1
            if item.raw_id in self.raw.items:
                exact.add(item.raw_id)
                yield item
            elif (other := twin(item.raw_id)) in self.raw.items and other is not None:
                self.repeated += other in others
                others.setdefault(other, replace(item, raw_id=other))
        yield from (item for raw_id, item in others.items() if raw_id not in exact)

    def _joined(self, own: Iterator[Item]) -> Iterator[Item]:
        """Known items, each once: the source's words first, then those of the items file."""
        seen: set[str] = set()
        for item in self._known(own):
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
        yield from (item for raw_id, item in self._more.items() if raw_id not in seen)
        seen.update(self._more)
        if self._pictures:
            yield from (Item(raw_id) for raw_id in sorted(self.raw.items - seen) if self._picture(Item(raw_id)))

    def _picture(self, item: Item) -> str | None:
        if not self._pictures:
            return None
        for name in (item.raw_id, *item.image_names):
            found = self._pictures.get(name) or self._pictures.get(Path(name).stem)
            if found:
                return found
        return None

    def write(self, path: Path, own: Iterator[Item], settings: dict[str, Any]) -> None:
        """Write the raw items in chunks."""
        root = str(self.image_root) if self.image_root else None
        schema = RAW_ITEMS.with_metadata(metadata("raw_items", settings, image_root=root))
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

    def _row(self, item: Item) -> dict[str, Any]:
        image = self._picture(item)
        texts = ((clean(whole(key)), clean(whole(value))) for key, value in item.attributes.items())
        self.told += 1
        self.images += image is not None
        return {
            "raw_id": item.raw_id,
            "title": clean(whole(item.title or "")) or None,
            "attributes": [(key, value) for key, value in texts if key and value],
            "image": image,
        }


def _pictures(folder: Path) -> dict[str, str]:
    """Picture files by stem and by path relative to the folder (sub-folders are looked into)."""
    if not folder.is_dir():
        raise DataFileError(f"{folder}: not a folder; `images` is a folder of pictures named by raw item id")
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(folder).as_posix()
            found.setdefault(path.stem, name)
            found[name] = name
    if not found:
        raise DataFileError(f"{folder}: holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return found
