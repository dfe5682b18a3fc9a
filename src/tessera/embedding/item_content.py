"""What a model reads of items: rows of tokens with a picture in them, whole, as views, or with parts hidden."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.content.reading import picture_pieces
from tessera.data.catalogue_pictures import CataloguePictures
from tessera.data.pictures import PictureError, at_most
from tessera.embedding.views import view
from tessera.language.models import LanguageModel
from tessera.language.prompts import Attributes, attribute_text, domain_sentence, item_attributes
from tessera.language.questions import Pixels, check_vision, read_pixels
from tessera.language.tokens import plain_frame, tokenize
from tessera.settings.language import ItemPrompt

CACHE_BYTES = 2**30
"""Patches of pictures that are kept; beyond, pictures are opened again."""


class Row(NamedTuple):
    """One row as the model reads it."""

    ids: list[int]
    """Tokens: those of the picture, then those of the text."""
    pixels: Pixels | None


class Part(NamedTuple):
    """What is to be read of an item."""

    attributes: Attributes
    """None where the list is empty."""
    pixels: Pixels | None


class ItemContent:
    """The texts and pictures of a catalogue, as one model reads them."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: ItemPrompt,
        catalogue: Path,
        captions: Mapping[str, Path],
        shown: Literal["text", "image", "both"],
        max_tokens: int,
        max_pixels: int,
    ) -> None:
        """
        Args:
            model: whose tokenizer and image processor are used.
            prompt: how items are told.
            catalogue: items.parquet.
            captions: told after the attributes.
            shown: what is read; of both, what there is.
            max_tokens: longest row; a text that is too long loses its end.
            max_pixels: larger pictures are made smaller.
        Raises:
            ValueError: no item has what is to be read, the folder of pictures is not there, or the model cannot see.
        """
        self.model, self.shown, self.max_pixels = model, shown, max_pixels
        self.most = min(max_tokens, model.context)
        self.attributes = item_attributes(catalogue, prompt, captions) if shown != "image" else {}
        self.frame = plain_frame(model, f"{domain_sentence(prompt.domain)}\n")
        self.pictures: CataloguePictures | None = None
        pictured: list[int] = []
        if shown != "text":
            check_vision(model, f"shown: {shown}")
            self.pictures = CataloguePictures(catalogue)
            pictured = [item for item in self.pictures.items if item in self.pictures]
            problem = self.pictures.problem()
            if problem and (pictured or not self.attributes):
                raise ValueError(f"{problem}; shown: {shown} asks for them")
        self.pictured = frozenset(pictured)
        self.items = sorted({*self.attributes, *pictured})
        """Ids of the items of which anything can be read, ascending."""
        if not self.items:
            raise ValueError(f"{catalogue}: no item has any text to read; look at prompt.attributes and captions")
        self.broken: set[int] = set()
        """Items whose picture cannot be read."""
        self.texts = self.cut = 0
        self._kept: dict[int, Pixels | None] = {}
        self._bytes = 0
        self._keys: dict[int, int] = {}
        special = set(model.tokenizer.all_special_ids) | {model.pad_token}
        config: Any = model.full.config
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
            special |= {int(token)} if (token := getattr(config, name, None)) is not None else set()
        self.special = np.array(sorted(special), np.int64)
        """Ids of tokens that are never hidden."""

    # ------------------------------------------------------------ pictures

    @property
    def merged(self) -> int:
        """Patches that are merged into one token."""
        assert self.model.image_processor is not None
        return int(self.model.image_processor.merge_size) ** 2

    def pixels(self, item: int) -> Pixels | None:
        """The picture of an item; None where it has none, or none that can be read (the log names five)."""
        if item not in self.pictured or item in self.broken:
            return None
        if item not in self._kept:
            pixels = self._open(item)
            size = 0 if pixels is None else pixels.patches.nbytes
            if pixels is None or self._bytes + size > CACHE_BYTES:
                return pixels
            self._kept[item] = pixels
            self._bytes += size
        return self._kept[item]

    def _open(self, item: int) -> Pixels | None:
        # one at a time: decoded pictures of a batch would fill the memory
        picture = self.picture(item)
        return None if picture is None else read_pixels(self.model, [picture])[0]

    def picture(self, item: int) -> Image.Image | None:
        """The picture of an item as the model's processor gets it; None where it has none, or none that can be read."""
        if item not in self.pictured or item in self.broken:
            return None
        assert self.pictures is not None
        try:
            return at_most(self.pictures.open(item), self.max_pixels)
        except PictureError as error:
            self.broken.add(item)
            if len(self.broken) <= 5:
                log.warning("item %d: %s", item, error)
            return None

    # ------------------------------------------------------------ rows

    def whole(self, item: int) -> Part:
        """All that is read of an item."""
        return Part(self.attributes.get(item, []), self.pixels(item))

    def read(self, item: int) -> tuple[list[int], bytes]:
        """All that a model reads of an item, to compare: its tokens, and the patches of its picture."""
        row = self.rows([self.whole(item)])[0]
        return row.ids, b"" if row.pixels is None else row.pixels.patches.numpy().tobytes()

    def view(self, item: int, drop: float, generator: np.random.Generator) -> Part:
        """An item with parts left out: a share of its attributes, in another order, and of its picture's tokens, whose
        patches become noise; where it has a text and a picture, with the chance `drop` one of them as a whole."""
        attributes, pixels = self.whole(item)
        if attributes and pixels is not None and generator.random() < drop:
            attributes, pixels = ([], pixels) if generator.random() < 0.5 else (attributes, None)
        attributes = view(attributes, drop, generator) if attributes else []
        if pixels is not None and drop:
            pixels = noised(pixels, hidden_tokens(pixels, drop, self.merged, generator), self.merged, generator)
        return Part(attributes, pixels)

    def rows(self, parts: Sequence[Part]) -> list[Row]:
        """Token rows, those of the picture before the text; a part that is empty has none.

        Raises:
            ValueError: a picture leaves no room for a text.
        """
        pieces = [[] if part.pixels is None else picture_pieces(self.model, part.pixels) for part in parts]
        texts: dict[int, list[int]] = {}
        for room in {len(own) for own in pieces}:
            some = [n for n, part in enumerate(parts) if len(pieces[n]) == room and part.attributes]
            lines = [attribute_text(parts[n].attributes) for n in some]
            if some and room and self.most - room <= len(self.frame):
                raise ValueError(
                    f"a picture has {room} tokens, and of {self.most} (max_tokens, or the model's context) they leave "
                    f"none for a text: lower max_pixels ({self.max_pixels:,}) or raise max_tokens"
                )
            made, cut = tokenize(lines, self.frame, self.model.tokenizer, self.most - room) if some else ([], 0)
            texts |= dict(zip(some, made, strict=True))
            self.texts, self.cut = self.texts + len(some), self.cut + cut
        return [Row([*own, *texts.get(n, [])], parts[n].pixels) for n, own in enumerate(pieces)]

    def costs(self, items: Sequence[int]) -> np.ndarray:
        """(n,) what reading each item costs: its tokens, four for every token of its picture, two for the picture.

        Pictures are not opened for it: each counts as the largest that is read.
        """
        rows = self.rows([Part(self.attributes.get(item, []), None) for item in items])
        text = np.array([len(row.ids) for row in rows], np.int64)
        if not self.pictured:
            return text
        processor: Any = self.model.image_processor
        area = min(self.max_pixels, int(dict(processor.size)["longest_edge"]))
        tokens = max(1, area // int(processor.patch_size) ** 2 // self.merged)
        seen = np.array([item in self.pictured for item in items])
        costs: np.ndarray = text + seen * (4 * tokens + 2)
        return costs

    def key(self, item: int) -> int:
        """A number that is the same for items of which the same is read."""
        if item not in self._keys:
            attributes, pixels = self.whole(item)
            digest = hashlib.blake2b(json.dumps(attributes).encode(), digest_size=8)
            if pixels is not None:
                digest.update(pixels.grid.numpy().tobytes() + pixels.patches.numpy().tobytes())
            self._keys[item] = int.from_bytes(digest.digest(), "big", signed=True)
        return self._keys[item]


def hidden_tokens(pixels: Pixels, share: float, merged: int, generator: np.random.Generator) -> Tensor:
    """Numbers, ascending, of a share of a picture's tokens: one at least, and never all unless there is one alone."""
    tokens = len(pixels.patches) // merged
    count = min(max(1, round(share * tokens)), max(1, tokens - 1))
    return torch.from_numpy(np.sort(generator.permutation(tokens)[:count]))


def patch_rows(tokens: Tensor, merged: int) -> Tensor:
    """(tokens x merged,) rows of the patches of some tokens: a token's stand side by side."""
    return (tokens[:, None] * merged + torch.arange(merged)).flatten()


def noised(pixels: Pixels, tokens: Tensor, merged: int, generator: np.random.Generator) -> Pixels:
    """A picture whose patches at some tokens are Gaussian noise, drawn for every row of its own."""
    rows = patch_rows(tokens, merged)
    patches = pixels.patches.clone()
    noise = generator.standard_normal((len(rows), patches.shape[1]), np.float32)
    patches[rows] = torch.from_numpy(noise).to(patches)
    return Pixels(patches, pixels.grid)
