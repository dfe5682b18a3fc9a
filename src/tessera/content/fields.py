"""What small encoders read of every item, made once: tokens of its texts, field by field, and patches of its picture.

A folder of arrays that are read through memory maps: what is asked for is read, and nothing else. The tokenizer is
trained on the catalogue itself, which knows no histories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tessera.artifacts.files import atomic, file_digest, read_json, write_json
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import ArtifactError, read_table
from tessera.content.tokenizer import train_tokenizer
from tessera.data.catalogue_pictures import CataloguePictures, warn_broken
from tessera.data.pictures import PictureError
from tessera.settings.base import ConfigError, did_you_mean
from tessera.settings.ctr import ItemContent

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, START, BETWEEN = 0, 1, 2
"""Token ids of padding, of the place whose state is the item's vector, and of what stands between fields."""
SPECIAL = ("[PAD]", "[START]", "[BETWEEN]")
INDEX = "content.json"
"""What a content is of, with the digests of its other files."""
FILES = (INDEX, "tokens.npy", "fields.npy", "offsets.npy", "first.npy", "patches.npy", "pictured.npy")
_CHUNK = 4096

Longs = npt.NDArray[np.int64]


def write_fields(settings: ItemContent, catalogue: Path, folder: Path) -> None:
    """Write the tokens and patches of a catalogue.

    Args:
        settings: which fields, how long, and how pictures are cut up.
        catalogue: items.parquet; `image_root` in its metadata is the folder of pictures.
        folder: where the files go; content.json is written last.
    Raises:
        ConfigError: a field is named that no item has.
        ArtifactError: the ids of items are not 1, 2, ..., or the folder of pictures is not there.
    """
    table = read_table(catalogue, "items", ["item", "title", "attributes"]).sort_by("item")
    items = table.column("item").to_pylist()
    if items != list(range(1, len(items) + 1)):
        raise ArtifactError(f"{catalogue}: the ids of items are not 1 to {len(items)}")
    pictures = CataloguePictures(catalogue) if settings.picture else None
    if pictures is not None and (missing := pictures.missing()):
        raise ArtifactError(f"{missing}; ctr.content reads them (picture: null reads texts alone)")
    described = [
        {"title": title or "", **{name: value or "" for name, value in attributes or []}}
        for title, attributes in zip(*(table.column(name).to_pylist() for name in ("title", "attributes")), strict=True)
    ]
    names = list(dict.fromkeys(name for texts in described for name in texts))
    for key, wanted in (("fields", settings.fields or []), ("tokens", settings.tokens)):
        for name in wanted:
            if name not in names:
                raise ConfigError(f"ctr.content.{key}: no item has the attribute {name!r}{did_you_mean(name, names)}")
    # a first field that says nothing of any item would make all queries one
    said = [name for name in names if any(texts.get(name) for texts in described)] or names[:1]
    lengths = {name: settings.tokens.get(name, settings.max_tokens) for name in settings.fields or said}
    if len(lengths) > np.iinfo(np.uint8).max - 2:
        raise ConfigError(f"ctr.content: {len(lengths)} fields, at most {np.iinfo(np.uint8).max - 2}; name some")
    every = (texts.get(name, "") for texts in described for name in lengths)
    tokenizer = train_tokenizer(every, settings.vocabulary, SPECIAL)
    cut = Counter[str]()
    rows, fields, first = _coded(tokenizer, described, lengths, cut)
    offsets = np.cumsum([0, 0, *map(len, rows)])
    _save(folder / "tokens.npy", np.concatenate([*rows, np.zeros(0, np.int32)]))
    _save(folder / "fields.npy", np.concatenate([*fields, np.zeros(0, np.uint8)]))
    _save(folder / "offsets.npy", offsets)
    _save(folder / "first.npy", np.array(first, np.int32))
    broken = _write_patches(settings, pictures, len(items), folder)
    with atomic(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    unnamed = first[1:].count(0)
    empty = int(np.sum((np.diff(offsets) == 0)[1:] & (np.load(folder / "pictured.npy")[1:] < 0)))
    write_json(
        folder / INDEX,
        {
            "items": len(items),
            "catalogue": file_digest(catalogue),
            # jobs name this file alone, and Snakemake goes by what it says
            "files": {path.name: file_digest(path) for path in content_files(folder) if path.name != INDEX},
            "vocabulary": tokenizer.get_vocab_size(),
            "fields": list(lengths),
            "max_tokens": lengths,
            "cut": {name: int(count) for name, count in cut.items() if count},
            "broken_pictures": broken,
            "without_content": empty,
            "without_first_field": unnamed,
            "longest": int(max(np.diff(offsets), default=0)),
            "mean_tokens": float(np.diff(offsets)[1:].mean()) if len(items) else 0.0,
            "picture": settings.picture,
            "patch": settings.patch,
        },
    )
    _tell(cut, lengths, len(items), empty, unnamed)


def _tell(cut: Counter[str], lengths: Mapping[str, int], items: int, empty: int, unnamed: int) -> None:
    for name, count in cut.items():
        if count:
            log.info("%s of %s texts of %r are cut to %d tokens", f"{count:,}", f"{items:,}", name, lengths[name])
    if empty:
        log.warning("%s of %s items have neither text nor picture", f"{empty:,}", f"{items:,}")
    if 2 * unnamed > items:
        log.warning(
            "%s of %s items have no %r: the first field is all that a query reads, name another (ctr.content.fields)",
            f"{unnamed:,}", f"{items:,}", next(iter(lengths)),
        )  # fmt: skip


def _coded(
    tokenizer: Tokenizer, described: Sequence[Mapping[str, str]], lengths: Mapping[str, int], cut: Counter[str]
) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Tokens and their fields of each item, and the length of its first field (0 stands before); counts cut texts."""
    rows, fields, first = list[np.ndarray](), list[np.ndarray](), [0]
    for start in range(0, len(described), _CHUNK):
        chunk = described[start : start + _CHUNK]
        coded = {
            name: [one.ids for one in tokenizer.encode_batch([texts.get(name, "") for texts in chunk])]
            for name in lengths
        }
        for number in range(len(chunk)):
            row, kinds = list[int](), list[int]()
            for kind, (name, most) in enumerate(lengths.items(), start=1):
                ids = coded[name][number]
                cut[name] += len(ids) > most
                if ids:
                    between = [BETWEEN] * bool(row)
                    row += [*between, *ids[:most]]
                    kinds += [kind] * (len(between) + len(ids[:most]))
                if kind == 1:
                    first.append(len(row))
            rows.append(np.array(row, np.int32))
            fields.append(np.array(kinds, np.uint8))
    return rows, fields, first


def _write_patches(settings: ItemContent, pictures: CataloguePictures | None, items: int, folder: Path) -> int:
    """Write patches and the row of each item's picture (-1: none); gives how many pictures cannot be read."""
    rows = np.full(items + 1, -1, np.int64)
    wanted = pictures.named() if pictures is not None else []
    side, patch = settings.picture or settings.patch, settings.patch
    shape = (len(wanted), (side // patch) ** 2, 3 * patch**2)
    broken, count = list[str](), 0
    with atomic(folder / "patches.npy") as temporary:
        if pictures is None or not wanted:
            with temporary.open("wb") as file:
                np.save(file, np.zeros(shape, np.uint8), allow_pickle=False)
        else:
            kept = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            with Progress("pictures", len(wanted), "pictures", seconds=15) as progress:
                for item in wanted:
                    try:
                        kept[count] = cut_up(pictures.open(item, 2 * side), side, patch)
                        rows[item], count = count, count + 1
                    except PictureError as error:
                        broken.append(str(error))
                    progress.update(1)
            kept.flush()
            del kept
    warn_broken(broken, len(wanted))
    _save(folder / "pictured.npy", rows)
    return len(broken)


def cut_up(picture: Image.Image, side: int, patch: int) -> npt.NDArray[np.uint8]:
    """(patches, 3 patch²) a picture made square, row by row; its proportions are not kept."""
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), np.uint8)
    grid = side // patch
    cells = pixels.reshape(grid, patch, grid, patch, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(cells.reshape(grid**2, -1))


def _save(path: Path, values: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)


@dataclass(frozen=True)
class Rows:
    """What stands to be read of some items: the start token, the fields, and, beside them, the patches."""

    tokens: Tensor
    """(rows, length) int64, `PAD` at padding."""
    fields: Tensor
    """(rows, length) int64: 0 the start token and padding, then the fields in their order."""
    patches: Tensor | None
    """(rows, patches, width) float32 from -1 to 1; None where no row has a picture, or none is read."""
    pictured: Tensor | None
    """(rows,) bool: whether there is a picture; None as for `patches`."""

    def to(self, device: torch.device) -> Rows:
        """The rows on a device."""
        parts = (self.tokens, self.fields, self.patches, self.pictured)
        return Rows(*(part.to(device) if part is not None else None for part in parts))  # type: ignore[arg-type]


class FieldContent:
    """The content of a catalogue, read through memory maps."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ArtifactError: a file is missing, or they do not fit one another.
        """
        for name in FILES:
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder / name}: no such file; expected the content of the items: make it again")
        about: dict[str, Any] = read_json(folder / "content.json")
        self.about = about
        self.items, self.vocabulary, self.longest = int(about["items"]), int(about["vocabulary"]), int(about["longest"])
        self.names = list(about["fields"])
        self._tokens, self._fields, self._patches = (
            _mapped(folder / f"{name}.npy") for name in ("tokens", "fields", "patches")
        )
        self._offsets, self._first, self._pictured = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("offsets", "first", "pictured")
        )
        sizes = {len(self._offsets) - 2, len(self._first) - 1, len(self._pictured) - 1, self.items}
        if len(sizes) > 1 or self._offsets[-1] != len(self._tokens):
            raise ArtifactError(f"{folder}: its files are of different catalogues; make the content again")

    @property
    def patches(self) -> tuple[int, int] | None:
        """How many patches a picture has, and the numbers of one; None where no picture is read."""
        return (self._patches.shape[1], self._patches.shape[2]) if self.about["picture"] else None

    def pictured(self, items: Longs) -> npt.NDArray[np.bool_]:
        """(n,) whether items have a picture."""
        return np.asarray(self._pictured[items] >= 0)

    def lengths(self, items: Longs, first_field: bool = False) -> Longs:
        """(n,) tokens and patches of items, the start token with them; 0 is an item that tells nothing."""
        if first_field:
            return np.asarray(1 + self._first[items], np.int64)
        pictures = self.patches[0] * self.pictured(items) if self.patches is not None else 0
        return np.asarray(1 + self._offsets[items + 1] - self._offsets[items] + pictures, np.int64)

    def rows(self, items: Longs, first_field: bool = False) -> Rows:
        """What is read of items (n,); with `first_field` of their first field alone. Item 0 tells nothing.

        Raises:
            ValueError: an id is not of the catalogue.
        """
        if len(items) and not (items.min() >= 0 and items.max() <= self.items):
            wrong = items.min() if items.min() < 0 else items.max()
            raise ValueError(f"item {wrong} is not of the content, whose ids are 1 to {self.items}")
        starts = self._offsets[items]
        counts = self._first[items] if first_field else self._offsets[items + 1] - starts
        longest = 1 + int(max(counts, default=0))
        tokens, fields = (np.zeros((len(items), longest), np.int64) for _ in range(2))
        tokens[:, 0] = START
        for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
            tokens[row, 1 : 1 + count] = self._tokens[start : start + count]
            fields[row, 1 : 1 + count] = self._fields[start : start + count]
        patches = pictured = None
        there = self.pictured(items)
        if self.patches is not None and not first_field and there.any():
            pictured = torch.from_numpy(there)
            seen = np.zeros((len(items), *self.patches), np.float32)
            seen[there] = self._patches[self._pictured[items[there]]] / 127.5 - 1
            patches = torch.from_numpy(seen)
        return Rows(torch.from_numpy(tokens), torch.from_numpy(fields), patches, pictured)


def _mapped(path: Path) -> npt.NDArray[Any]:
    # an empty file cannot be mapped
    values: npt.NDArray[Any] = np.load(path, mmap_mode="r" if path.stat().st_size > 128 else None, allow_pickle=False)
    return values


def content_files(folder: Path) -> Iterator[Path]:
    """The files of a content that models depend on."""
    yield from (folder / name for name in FILES)
