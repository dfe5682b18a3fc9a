"""What a model is asked of an item: a chat message with its picture, its text, or both, as token rows.

The three questions are those of DMESR (arXiv 2602.13715; the published wording is not known, this is ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tessera.language.models import LanguageModel, LanguageModelError
from tessera.language.prompts import attribute_text, domain_sentence
from tessera.language.tokens import PLACE, Frame, chat_text, plain_frame, tokenize

Source = Literal["image", "text", "both"]

INSTRUCTIONS: dict[str, str] = {
    "image": "Describe the item in this picture.",
    "text": "Describe this item by its attributes.",
    "both": "Describe this item by its picture and its attributes.",
}
READS_PICTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Architectures whose pictures are read here: those that take patches with their grid."""


@dataclass
class Pixels:
    """One picture as its patches."""

    patches: Tensor
    """(patches, channels x 2 x side x side) float32, normalised."""
    grid: Tensor
    """(3,) time, height, width, in patches."""

    def tokens(self, merge: int) -> int:
        """How many tokens stand for the picture."""
        return int(self.grid.prod()) // merge**2


def check_vision(model: LanguageModel, what: str) -> None:
    """Refuse a model that cannot be shown pictures.

    Raises:
        LanguageModelError: it is no vision-language model, or one whose pictures are not read here.
    """
    if model.kind != "vision":
        raise LanguageModelError(
            f"{what} shows pictures, but the model is a {model.kind}: use a vision-language model or `source: text`"
        )
    config: Any = model.full.config
    if config.model_type not in READS_PICTURES:
        raise LanguageModelError(
            f"{what} shows pictures to a model of type {config.model_type}; known are {', '.join(READS_PICTURES)}"
        )


def read_pixels(model: LanguageModel, pictures: Sequence[Any]) -> list[Pixels]:
    """Pictures in RGB as the model's processor sees them, each with its own grid."""
    if not pictures:
        return []
    assert model.image_processor is not None
    made = model.image_processor(images=list(pictures), return_tensors="pt")
    grids = made["image_grid_thw"]
    counts = grids.prod(-1).tolist()
    return [Pixels(*pair) for pair in zip(torch.split(made["pixel_values"], counts), grids, strict=True)]


def without_pixels(model: LanguageModel, picture: Any) -> Pixels:
    """As many patches as `read_pixels` makes of a picture, in one line and on the device `meta`, which holds none.

    Pixels take eight times the memory of the picture. Token rows are made without them, and those of a batch when it is
    read.
    """
    processor: Any = model.image_processor
    side = int(processor.patch_size)
    if processor.do_resize:
        count = int(processor.get_number_of_image_patches(picture.height, picture.width))
    else:
        count = (picture.height // side) * (picture.width // side)
    width = 3 * int(processor.temporal_patch_size) * side**2
    return Pixels(torch.empty(count, width, device="meta"), torch.tensor([1, 1, count]))


class Question:
    """One of the three questions to one model: frames around item texts, and the picture's place in them."""

    def __init__(self, model: LanguageModel, source: Source, domain: str, instruction: str | None = None) -> None:
        """
        Args:
            model: whose chat template and picture tokens are used.
            source: what the item is shown by.
            domain: for the sentence before the attributes.
            instruction: null takes that of `INSTRUCTIONS`.
        Raises:
            LanguageModelError: a picture is to be shown to a model that sees none.
        """
        self.model = model
        self.source = source
        self.pictured = source != "text"
        self.reads_text = source != "image"
        if self.pictured:
            check_vision(model, f"source: {source}")
        elif model.kind == "encoder":
            raise LanguageModelError("captions are written by decoders and vision-language models; this is an encoder")
        asked = instruction or INSTRUCTIONS[source]
        if self.reads_text:
            asked = f"{asked}\n{domain_sentence(domain)}\n{PLACE}"
        self.frame = self._frame(asked)

    def _frame(self, asked: str) -> Frame:
        tokenizer = self.model.tokenizer
        if getattr(tokenizer, "chat_template", None) is None:
            if self.pictured:
                raise LanguageModelError("the tokenizer has no chat template: it cannot say where the picture stands")
            return plain_frame(self.model, asked.replace(PLACE, ""), end=False)
        text = chat_text(tokenizer, asked, pictured=self.pictured)
        opening, _, closing = text.partition(PLACE)
        ids = [tokenizer(part, add_special_tokens=False)["input_ids"] if part else [] for part in (opening, closing)]
        frame = Frame(tuple(ids[0]), tuple(ids[1]))
        if self.pictured and (count := (*frame.before, *frame.after).count(self.image_token)) != 1:
            raise LanguageModelError(
                f"the tokenizer's chat template makes {count} tokens {self.image_token} (image_token_id) of a picture, "
                "expected one: it is of another model, or of one for texts alone; fetch or save the model's own "
                "chat_template.jinja again"
            )
        return frame

    @property
    def image_token(self) -> int:
        """Id that stands for a piece of a picture."""
        config: Any = self.model.full.config
        return int(config.image_token_id)

    def rows(
        self, attributes: Sequence[Sequence[tuple[str, str]]], pixels: Sequence[Pixels | None], room: int
    ) -> tuple[list[list[int]], int]:
        """Token rows that end where the answer begins, and how many texts were cut.

        Args:
            attributes: of each item; not looked at where the question is about the picture alone.
            pixels: of each item; None where the question is about the text alone.
            room: tokens to leave for the answer.
        Raises:
            LanguageModelError: the model's context does not hold question, picture and answer.
        """
        texts = [attribute_text(pairs) if self.reads_text else "" for pairs in attributes]
        if not self.pictured:
            return tokenize(texts, self.frame, self.model.tokenizer, self._most(room, 0))
        merge = int(self.model.image_processor.merge_size) if self.model.image_processor is not None else 1
        made, cut = [], 0
        for text, seen in zip(texts, pixels, strict=True):
            assert seen is not None
            extra = seen.tokens(merge) - 1
            rows, shorter = tokenize([text], self.frame, self.model.tokenizer, self._most(room, extra))
            cut += shorter
            place = rows[0].index(self.image_token)
            made.append([*rows[0][:place], *[self.image_token] * extra, *rows[0][place:]])
        return made, cut

    def _most(self, room: int, extra: int) -> int:
        """Most tokens of a question beside `extra` of a picture and `room` for the answer."""
        most = self.model.context - room - extra
        if most <= len(self.frame):
            picture = f", a picture ({extra + 1})" if self.pictured else ""
            raise LanguageModelError(
                f"the model's context of {self.model.context} tokens does not hold the question ({len(self.frame)})"
                f"{picture} and an answer ({room}); ask for a shorter answer or show smaller pictures, or give a model "
                "that reads more"
            )
        return most


def picture_inputs(ids: Tensor, pixels: Sequence[Pixels], image_token: int, device: torch.device) -> dict[str, Tensor]:
    """What the whole model is given beside ids (batch, length) and their mask, for the pictures in row order."""
    if not pixels:
        return {}
    return {
        "pixel_values": torch.cat([seen.patches for seen in pixels]).to(device),
        "image_grid_thw": torch.stack([seen.grid for seen in pixels]).to(device),
        # without it positions in two dimensions are silently dropped
        "mm_token_type_ids": (ids == image_token).to(torch.int32).to(device),
    }


def picture_positions(ids: Tensor, mask: Tensor, grids: Tensor, image_token: int, merge: int) -> Tensor:
    """(3, batch, length) rotary positions in time, height and width, as Qwen2.5-VL's own `get_rope_index` counts them.

    That one counts row by row, which takes longer than a layer of a small model.

    Args:
        ids: (batch, length) padded at the right; a row has one picture or none.
        mask: (batch, length) 1 at tokens, 0 at padding.
        grids: (pictures, 3) time, height, width in patches, in row order; all of one moment.
        image_token: what stands for a piece of a picture.
        merge: patches on a side that are merged into one token.
    """
    seen = ids == image_token
    count = seen.sum(1, keepdim=True)
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    start = torch.where(count > 0, seen.int().argmax(1, keepdim=True), ids.shape[1])
    sides = ids.new_ones(len(ids), 2)
    sides[count[:, 0] > 0] = grids[:, 1:].to(ids) // merge
    inside = place - start
    wide = sides[:, 1:]
    # a picture takes as many positions as its longer side
    text = torch.where(inside < 0, place, place - count + sides.amax(1, keepdim=True))
    axes = (start, start + inside // wide, start + inside % wide)
    return torch.stack([torch.where(seen, axis, text) for axis in axes]) * mask


def lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """(rows,) tokens in each."""
    return np.array([len(row) for row in rows], np.int64)
