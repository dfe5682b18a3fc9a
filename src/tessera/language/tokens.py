"""Texts to token rows: a frame around each text, cuts that spare the frame, batches by length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.language.bounded import RefusedError, bounded

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

SYSTEM = "You are an expert who writes short and exact descriptions of items."
PLACE = "\u2042"  # stands for the text while the frame around it is made
_PROBE = "a"  # a text that every tokenizer knows


class _OneDay(datetime):
    """A clock that stands: Llama 3 and others tell the day, and what is read today must be read so tomorrow.

    The day is the one that Llama's own template falls back to.
    """

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """26 July 2024."""
        return cls(2024, 7, 26, tzinfo=tz)


@dataclass(frozen=True)
class Frame:
    """Token ids that stand before and after every text."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of what items say of themselves: `<|im_end|>` in a title is these ten characters, and ends nothing."""
    if not len(texts):
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
    return [list(ids) for ids in encoded["input_ids"]]


def plain_frame(model: LanguageModel, before: str = "", end: bool = True) -> Frame:
    """Words before the text and, with `end`, the end token after it. The tokenizer's own start token comes first; of an
    encoder its own end token is the end."""
    tokenizer = model.tokenizer
    # which of a tokenizer's own tokens stand before a text shows around a text, and not around nothing
    probe = before or _PROBE
    whole = list(tokenizer(probe, add_special_tokens=True)["input_ids"])
    plain = _ids(tokenizer, probe)
    lead = next((i for i in range(len(whole) + 1) if whole[i : i + len(plain)] == plain), 0)
    first = whole[:lead]
    last = whole[lead + len(plain) :] if model.kind == "encoder" else [model.end_token] if end else []
    return Frame((*first, *_ids(tokenizer, before)), tuple(last))


def chat_frame(model: LanguageModel, before: str, system: str = SYSTEM, answer: bool = False) -> Frame:
    """The chat template with a system message, and a user message that starts with `before`.

    A tokenizer without a chat template gets the same words without one, which is logged.

    Args:
        model: whose tokenizer has the template.
        before: words before what is told.
        system: the system message; none where it is empty.
        answer: end with the generation prompt, after which the assistant speaks; without a template, with a newline.
    """
    if getattr(model.tokenizer, "chat_template", None) is None:
        log.info("the tokenizer has no chat template: items are told in plain words instead")
        frame = plain_frame(model, f"{system}\n{before}" if system else before, end=False)
        return Frame(frame.before, (*frame.after, *_ids(model.tokenizer, "\n" if answer else "")))
    text = chat_text(model.tokenizer, before + PLACE, system, answer)
    opening, _, closing = text.partition(PLACE)
    return Frame(tuple(_ids(model.tokenizer, opening)), tuple(_ids(model.tokenizer, closing)))


def chat_text(tokenizer: Any, request: str, system: str = "", answer: bool = True, pictured: bool = False) -> str:
    """A user's message in the words of the tokenizer's chat template, without thinking aloud.

    A template that knows no system role gets the system message before the request, and one that wants content in
    parts gets parts.

    Args:
        tokenizer: with a chat template.
        request: the message; it holds `PLACE`, unless it is about a picture alone.
        system: the system message; none where it is empty.
        answer: end with the generation prompt.
        pictured: a picture stands before the request.
    Raises:
        ValueError: no form of the message comes through the template, or it takes more time, memory or characters
            than `bounded` lets it.
    """

    forms: list[list[dict[str, Any]]] = []
    for said, own in ((request, system), (f"{system}\n{request}" if system else request, "")):
        parts = [*([{"type": "image"}] if pictured else []), {"type": "text", "text": said}]
        contents: list[Any] = [parts] if pictured else [said, parts]
        for content in contents:
            before = [{"role": "system", "content": own if content is said else [{"type": "text", "text": own}]}]
            forms.append([*(before if own else []), {"role": "user", "content": content}])
    refused = "it drops the message"
    for form in forms:
        try:
            text = bounded(partial(_told, tokenizer, form, answer), "the tokenizer's chat template")
        except RefusedError as error:
            refused = str(error)
            continue
        if request in text and (not system or system in text):
            return text
    raise ValueError(f"the tokenizer's chat template does not tell what a user asks: {refused}")


def _told(tokenizer: Any, form: list[dict[str, Any]], answer: bool) -> str:
    """What a template makes of messages; in the child of `bounded`, for whom alone the clock of templates stands."""
    from transformers.utils import chat_template_utils

    vars(chat_template_utils)["datetime"] = _OneDay
    return str(tokenizer.apply_chat_template(form, tokenize=False, add_generation_prompt=answer, enable_thinking=False))


def tokenize(texts: Sequence[str], frame: Frame, tokenizer: Any, most: int) -> tuple[list[list[int]], int]:
    """Token rows of at most `most` tokens: a text that is too long loses its end, the frame stays.

    Returns:
        rows, and how many texts were cut.
    Raises:
        ValueError: the frame alone leaves no room for a text.
    """
    room = most - len(frame)
    if room < 1:
        raise ValueError(
            f"the prompt around each text has {len(frame)} tokens, and both together may have {most} (the lesser of "
            "max_tokens and what the model reads, less what stands behind a text): raise max_tokens, or take a model "
            "that reads more"
        )
    encoded = text_ids(tokenizer, texts)
    rows = [[*frame.before, *ids[:room], *frame.after] for ids in encoded]
    return rows, sum(len(ids) > room for ids in encoded)


def length_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Indices in batches of like length, the longest first, so that rows x longest stays within `batch_tokens`."""
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def pad_rows(
    rows: Sequence[Sequence[int]], pad: int, side: Literal["right", "left"] = "right"
) -> tuple[Tensor, Tensor]:
    """Token ids (batch, length) and mask (batch, length), 1 at tokens and 0 at padding; both int64."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), pad, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[number, place] = row
        mask[number, place] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
