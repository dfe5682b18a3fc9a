"""Samples and the catalogue as models read them: histories stay on disk, mapped, until a batch asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tessera.artifacts.codes import read_codebooks, read_codes
from tessera.artifacts.tables import ArtifactError, check_ids, describe, read_table
from tessera.content.fields import FieldContent
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.samples import EVENTS, PARTS
from tessera.data.clock import read_clock
from tessera.data.padding import padded

Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampleSet:
    """Every sample of a dataset; those of a part are `of(part)`."""

    offsets: Longs
    """(users + 2,) events of user `u` are `offsets[u]:offsets[u + 1]`."""
    items: npt.NDArray[np.int32]
    """(events,) mapped from disk."""
    times: Longs
    """(events,) times as the log counts them, `ticks` a second, or places in the user's log; mapped from disk."""
    users: Longs
    targets: Longs
    labels: npt.NDArray[np.float32]
    ends: Longs
    """(samples,) the history of a sample is `offsets[user]:end`."""
    moments: Longs
    parts: npt.NDArray[np.int8]
    ticks: int = 1
    """Units of `times` and `moments` a second; 1 for places in the log."""

    def of(self, part: str) -> Longs:
        """Numbers of the samples of a part."""
        return np.flatnonzero(self.parts == PARTS.index(part))

    @property
    def lengths(self) -> Longs:
        """(samples,) events of each history."""
        return self.ends - self.offsets[self.users]

    def batch(self, numbers: Longs, most: int | None = None) -> Batch:
        """Some of the samples; `most` keeps the latest events of each history."""
        ends = self.ends[numbers]
        lengths = ends - self.offsets[self.users[numbers]]
        if most is not None:
            lengths = np.minimum(lengths, most)
        starts = ends - lengths
        histories = padded(self.items, starts, lengths)
        real = np.arange(histories.shape[1]) < lengths[:, None]
        ages = np.where(real, self.moments[numbers][:, None] - padded(self.times, starts, lengths), 0)
        if self.ticks > 1:
            ages //= self.ticks
        return Batch(
            users=torch.from_numpy(self.users[numbers]),
            items=torch.from_numpy(self.targets[numbers]),
            histories=torch.from_numpy(histories),
            lengths=torch.from_numpy(lengths),
            ages=torch.from_numpy(ages),
            labels=torch.from_numpy(self.labels[numbers]),
        )


def load_samples(folder: Path) -> SampleSet:
    """Read what `make_samples` wrote.

    Raises:
        ArtifactError: files are missing or do not fit one another.
    """
    path = folder / "samples.parquet"
    table = read_table(path, "ctr_samples")
    arrays = {}
    for name in ("offsets", "items", "times"):
        file = folder / f"{name}.npy"
        if not file.is_file():
            raise ArtifactError(f"{file}: no such file; expected the events of the histories")
        # an empty file cannot be mapped
        mapped = name != "offsets" and file.stat().st_size > 128
        arrays[name] = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    offsets = arrays["offsets"]
    users, ends = (table.column(name).to_numpy().astype(np.int64) for name in ("user", "end"))
    check_ids(path, table, "user", len(offsets) - 2)
    if len(arrays["items"]) != offsets[-1] or len(arrays["times"]) != offsets[-1]:
        raise ArtifactError(f"{folder}: {len(arrays['items'])} events, but offsets.npy counts {offsets[-1]}")
    wrong = np.flatnonzero((ends < offsets[users]) | (ends > offsets[users + 1]))
    if len(wrong):
        raise ArtifactError(f"{path}: row {wrong[0]} ends at event {ends[wrong[0]]}, outside those of its user")
    parts = np.asarray(
        pc.index_in(table.column("split").combine_chunks(), pa.array(PARTS)).to_numpy(zero_copy_only=False)
    )
    return SampleSet(
        offsets=offsets,
        items=arrays["items"],
        times=arrays["times"],
        users=users,
        targets=table.column("item").to_numpy().astype(np.int64),
        labels=table.column("label").to_numpy().astype(np.float32),
        ends=ends,
        moments=table.column("timestamp").to_numpy().astype(np.int64),
        parts=parts.astype(np.int8),
        ticks=1 if describe(path).get("time_unit") == EVENTS else read_clock(path).ticks,
    )


def load_catalogue(folder: Path, codes: Path | None = None, content: Path | None = None) -> Catalogue:
    """What models know of the items.

    Args:
        folder: the samples.
        codes: `codes.parquet` of semantic IDs.
        content: folder of texts and pictures.
    Raises:
        ArtifactError: the content is that of another catalogue.
    """
    path = folder / "catalogue.parquet"
    table = read_table(path, "ctr_catalogue").sort_by("item")
    items = table.num_rows
    check_ids(path, table, "item", items)
    read = FieldContent(content) if content is not None else None
    if read is not None and read.items != items:
        raise ArtifactError(f"{content}: the content of {read.items} items, the samples have {items}")
    categories, events = (
        torch.from_numpy(np.concatenate([[0], table.column(name).to_numpy()]).astype(np.int64))
        for name in ("category", "events")
    )
    return Catalogue(
        items=items,
        categories=categories,
        n_categories=len(describe(path)["categories"]),
        popularity=events,
        met=torch.from_numpy(np.concatenate([[False], table.column("met").to_numpy(zero_copy_only=False)])),
        codes=read_codes(codes, items) if codes is not None else None,
        codebooks=read_codebooks(codes) if codes is not None else {},
        users=len(np.load(folder / "offsets.npy", allow_pickle=False)) - 2,
        content=read,
    )
