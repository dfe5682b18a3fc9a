"""What a model reads of every item, made once: token rows of texts and patches of pictures, by item id.

A store is a folder of shards, each one safetensors file that is written atomically and read through a memory map, and
`store.json`, written last: without it the store is not finished, and making it again goes on from the shards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tessera.artifacts.files import file_digest, identity, read_json, write_json
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.models import write_tensors
from tessera.artifacts.tables import ArtifactError
from tessera.data.catalogue_pictures import CataloguePictures, warn_broken
from tessera.data.pictures import PictureError, at_most, open_picture
from tessera.language.models import LanguageModel
from tessera.language.prompts import attribute_text, domain_sentence, item_attributes
from tessera.language.questions import Pixels, check_vision, read_pixels
from tessera.language.tokens import plain_frame, tokenize
from tessera.settings.language import ItemPrompt

PRESENT, ABSENT, BROKEN = 1, 0, 2
"""What there is of an item's text or picture: it is there, the catalogue names none, or the file cannot be read."""

_INDEX = "store.json"


@dataclass
class Rows:
    """What a store holds of some items, in the order in which they were asked for."""

    texts: list[list[int]]
    """Token ids; empty where there is no text."""
    pictures: list[Pixels | None]
    """Patches; None where there is no picture."""


def write_store(
    folder: Path,
    catalogue: Path,
    model: LanguageModel,
    prompt: ItemPrompt,
    max_tokens: int = 512,
    max_pixels: int | None = None,
    shard: int = 1024,
) -> None:
    """Make the store of a catalogue, or go on where a kill ended it.

    Args:
        folder: of the store.
        catalogue: items.parquet; `image_root` in its metadata is the folder of pictures.
        model: whose tokenizer and image processor are used.
        prompt: how texts are told.
        max_tokens: longer texts lose their end, which is counted.
        max_pixels: pictures are kept, larger ones made smaller; None keeps none.
        shard: items in a file.
    Raises:
        ValueError: the model sees no pictures, though they are asked for, their folder is not there, or the ids of
            items are not 1, 2, ...
    """
    if max_pixels is not None:
        check_vision(model, "a content store with pictures")
    pictures = CataloguePictures(catalogue)
    items = pictures.items
    if items != list(range(1, len(items) + 1)):
        raise ValueError(f"{catalogue}: the ids of items are not 1 to {len(items)}")
    if max_pixels is not None and (missing := pictures.missing()):
        raise ValueError(f"{missing}; a content store without max_pixels keeps no pictures")
    named = set(pictures.named()) if max_pixels is not None else set[int]()
    attributes = item_attributes(catalogue, prompt)
    frame = plain_frame(model, f"{domain_sentence(prompt.domain)}\n")
    made_from = {
        "catalogue": file_digest(catalogue),
        "tokenizer": identity(model.tokenizer.backend_tokenizer.to_str(), json.dumps(frame.before + frame.after)),
        "image_processor": identity(cast(Any, model.image_processor).to_json_string())
        if max_pixels is not None
        else None,
        "prompt": prompt.model_dump(mode="json"),
        "max_tokens": max_tokens,
        "max_pixels": max_pixels,
        "shard": shard,
    }
    cut, broken, shards = 0, list[str](), list[str]()
    with Progress("content", len(items), "items") as progress:
        for start in range(0, len(items), shard):
            chunk = items[start : start + shard]
            paths = [pictures.path(item) if item in named else None for item in chunk]
            digests = [file_digest(path) if path is not None and path.is_file() else "" for path in paths]
            own = identity(json.dumps(made_from, sort_keys=True), str(start), *digests)
            shards.append(own)
            path = _shard(folder, start // shard)
            if _identity(path) != own:
                texts, shorter = tokenize(
                    [attribute_text(attributes[item]) if item in attributes else "" for item in chunk],
                    frame, model.tokenizer, min(max_tokens, model.context),
                )  # fmt: skip
                rows = [row if item in attributes else [] for item, row in zip(chunk, texts, strict=True)]
                pixels, picture, why = _pictures(model, paths, max_pixels)
                cut += shorter
                broken += why
                write_tensors(path, _tensors(rows, pixels, picture), {"identity": own})
            progress.update(len(chunk))
    if cut:
        log.info("%s texts are cut to %d tokens", f"{cut:,}", max_tokens)
    warn_broken(broken, len(named))
    write_json(folder / _INDEX, {"items": len(items), "shards": shards, "made_from": made_from})


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def _identity(path: Path) -> str | None:
    try:
        with safe_open(path, "np") as file:
            return (file.metadata() or {}).get("identity")
    except (OSError, SafetensorError):
        return None


def _pictures(
    model: LanguageModel, paths: Sequence[Path | None], max_pixels: int | None
) -> tuple[list[Pixels | None], list[int], list[str]]:
    pictures: list[Pixels | None] = []
    status, why = [], []
    for path in paths:
        pixels, state = None, ABSENT
        if path is not None and max_pixels is not None:
            try:
                # one at a time: a shard of decoded pictures would fill the memory
                pixels, state = read_pixels(model, [at_most(open_picture(path), max_pixels)])[0], PRESENT
            except PictureError as error:
                state = BROKEN
                why.append(str(error))
        pictures.append(pixels)
        status.append(state)
    return pictures, status, why


def _tensors(rows: list[list[int]], pixels: list[Pixels | None], picture: list[int]) -> dict[str, Tensor]:
    some = [seen for seen in pixels if seen is not None]
    width = some[0].patches.shape[1] if some else 0
    counts = [0 if seen is None else len(seen.patches) for seen in pixels]
    return {
        "ids": torch.tensor([token for row in rows for token in row], dtype=torch.int32),
        "offsets": torch.tensor(np.cumsum([0, *map(len, rows)])),
        "text": torch.tensor([PRESENT if row else ABSENT for row in rows], dtype=torch.uint8),
        "patches": torch.cat([seen.patches for seen in some]) if some else torch.zeros(0, width),
        "patch_offsets": torch.tensor(np.cumsum([0, *counts])),
        "grids": torch.stack([torch.zeros(3, dtype=torch.int64) if seen is None else seen.grid for seen in pixels]),
        "picture": torch.tensor(picture, dtype=torch.uint8),
    }


class ContentStore:
    """A finished store, read through memory maps: what is asked for is read, and nothing else."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ArtifactError: the store is not finished, or a shard is missing, damaged or of another store.
        """
        if not (folder / _INDEX).is_file():
            raise ArtifactError(f"{folder}: no finished content store ({_INDEX} is not there); make it again")
        described: dict[str, Any] = read_json(folder / _INDEX)
        self.items = int(described["items"])
        self.made_from = described["made_from"]
        self._size = int(self.made_from["shard"])
        self._files, text, picture = [], [], []
        self._offsets: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        for number, own in enumerate(described["shards"]):
            path = _shard(folder, number)
            if _identity(path) != own:
                raise ArtifactError(f"{path}: is missing, damaged or of another store; make the store again")
            opened: Any = safe_open(path, "pt")
            file = opened.__enter__()
            self._files.append(file)
            self._offsets.append((file.get_tensor("offsets").numpy(), file.get_tensor("patch_offsets").numpy()))
            text.append(file.get_tensor("text").numpy())
            picture.append(file.get_tensor("picture").numpy())
        self.text = np.concatenate([[ABSENT], *text])
        """(items + 1,) what there is of each text: `PRESENT` or `ABSENT`."""
        self.picture = np.concatenate([[ABSENT], *picture])
        """(items + 1,) what there is of each picture: `PRESENT`, `ABSENT` or `BROKEN`."""

    def rows(self, items: Sequence[int]) -> Rows:
        """Texts and pictures of items, which may stand twice.

        Raises:
            ValueError: an id is not of the catalogue.
        """
        content = Rows([], [])
        for item in items:
            if not 1 <= item <= self.items:
                raise ValueError(f"item {item} is not of the store, whose ids are 1 to {self.items}")
            number, row = divmod(item - 1, self._size)
            file, (tokens, patches) = self._files[number], self._offsets[number]
            first, last = int(tokens[row]), int(tokens[row + 1])
            content.texts.append(file.get_slice("ids")[first:last].tolist() if last > first else [])
            first, last = int(patches[row]), int(patches[row + 1])
            seen = Pixels(file.get_slice("patches")[first:last], file.get_slice("grids")[row]) if last > first else None
            content.pictures.append(seen)
        return content
