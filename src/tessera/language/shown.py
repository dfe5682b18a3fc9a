"""What a model is shown of the items of a catalogue: which have it, which lack it, which pictures are broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tessera.data.catalogue_pictures import CataloguePictures
from tessera.data.pictures import PictureError, at_most
from tessera.language.models import LanguageModelError
from tessera.language.prompts import Attributes, item_attributes
from tessera.language.questions import Pixels, Question, lengths, read_pixels, without_pixels
from tessera.settings.language import ItemPrompt

CAPTIONED, NO_PICTURE, BROKEN_PICTURE, NO_TEXT = "captioned", "no picture", "broken picture", "no text"
"""What became of an item: it is shown (and captioned), or lacks what the model is to be shown."""
NO_ANSWER = "no answer"
"""It was shown, and the model said nothing."""


@dataclass
class Seen:
    """Some items as a question shows them."""

    status: dict[int, str] = field(default_factory=dict)
    """Of every item, one of the four above."""
    pictures: dict[int, Image.Image] = field(default_factory=dict)
    """Of the items that are shown by one."""
    broken: list[str] = field(default_factory=list)
    """Why pictures cannot be read."""

    @property
    def asked(self) -> list[int]:
        """Items that the model can be asked about."""
        return [item for item, status in self.status.items() if status == CAPTIONED]


class Asked(NamedTuple):
    """Items that the model is asked about at once."""

    items: list[int]
    rows: list[list[int]]
    """Token rows that end where the answer begins."""
    pixels: list[Pixels | None]
    """Of each item; None where the question is about the text alone."""


class ShownCatalogue:
    """The items of a dataset with what one question shows of them."""

    def __init__(self, question: Question, prompt: ItemPrompt, catalogue: Path, max_pixels: int) -> None:
        """
        Args:
            question: picture, text, or both.
            prompt: how the text is told.
            catalogue: items.parquet; `image_root` in its metadata is the folder of pictures.
            max_pixels: larger pictures are made smaller, which bounds memory and tokens.
        Raises:
            LanguageModelError: no item has what it is to be shown, or the folder of pictures is not there.
        """
        self.question = question
        self.max_pixels = max_pixels
        source = question.source
        self._pictures = CataloguePictures(catalogue)
        self.items = self._pictures.items
        self.attributes: dict[int, Attributes] = item_attributes(catalogue, prompt) if question.reads_text else {}
        if question.pictured and (problem := self._pictures.problem()):
            raise LanguageModelError(f"{problem}; pictures are asked for (source {source!r}): without them, use text")
        if question.reads_text and not self.attributes:
            raise LanguageModelError(f"{catalogue}: no item has a text, but it is asked for (source {source!r})")

    def see(self, items: Sequence[int]) -> Seen:
        """Open the pictures of some items; with picture and text, an item that lacks one of them is not asked about."""
        seen = Seen()
        for item in items:
            seen.status[item] = CAPTIONED
            if self.question.pictured:
                if item not in self._pictures:
                    seen.status[item] = NO_PICTURE
                    continue
                try:
                    seen.pictures[item] = at_most(self._pictures.open(item), self.max_pixels)
                except PictureError as error:
                    seen.broken.append(f"item {item}: {error}")
                    seen.status[item] = BROKEN_PICTURE
                    continue
            if self.question.reads_text and item not in self.attributes:
                seen.status[item] = NO_TEXT
        return seen

    def nothing(self) -> str:
        """Why the model could not be asked about any item."""
        pictured = self._pictures.named()
        if self.question.reads_text and not any(item in self.attributes for item in pictured):
            return f"{len(pictured):,} items have a picture and {len(self.attributes):,} a text, but none has both"
        return "every picture is broken"

    def ask(self, items: Sequence[int], batch: int, room: int) -> tuple[Seen, Iterator[Asked], int]:
        """Some items as the model is asked about them.

        Args:
            items: a group of items, whose pictures are open at a time.
            batch: items at once, of like length.
            room: tokens to leave for the answer.
        Returns:
            what became of the items, those that can be asked about in batches, and how many texts were cut. Pixels are
            those of one batch at a time, made when it is asked for.
        """
        seen = self.see(items)
        asked = seen.asked
        pixels: list[Pixels | None] = [None] * len(asked)
        if self.question.pictured:
            pixels[:] = [without_pixels(self.question.model, seen.pictures[item]) for item in asked]
        rows, cut = self.question.rows([self.attributes.get(item, []) for item in asked], pixels, room)
        order = np.argsort(-lengths(rows), kind="stable").tolist()
        chosen = (order[start : start + batch] for start in range(0, len(order), batch))

        def read(some: list[int]) -> Asked:
            items = [asked[number] for number in some]
            return Asked(items, [rows[number] for number in some], self._pixels(seen, items))

        return seen, map(read, chosen), cut

    def _pixels(self, seen: Seen, items: Sequence[int]) -> list[Pixels | None]:
        """Of some items that are asked about."""
        if not self.question.pictured:
            return [None] * len(items)
        return list(read_pixels(self.question.model, [seen.pictures[item] for item in items]))
