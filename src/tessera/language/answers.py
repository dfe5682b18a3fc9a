"""What a model answers to a question: greedy, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tessera.language.models import LanguageModel
from tessera.language.questions import Pixels, Question, picture_inputs
from tessera.language.tokens import pad_rows


def answer(
    question: Question, rows: Sequence[Sequence[int]], pixels: Sequence[Pixels], max_new_tokens: int
) -> list[str]:
    """The model's greedy answers, with a cache of keys and values.

    Args:
        question: whose rows these are.
        rows: token rows that end where the answer begins.
        pixels: the pictures of all rows, in order; none where the question shows none.
        max_new_tokens: longest answer.
    """
    image = question.image_token if question.pictured else -1
    return greedy(question.model, rows, max_new_tokens, pixels, image)


@torch.no_grad()
def greedy(
    model: LanguageModel,
    rows: Sequence[Sequence[int]],
    max_new_tokens: int,
    pixels: Sequence[Pixels] = (),
    image_token: int = -1,
) -> list[str]:
    """The model's greedy answers to token rows; see `answer`. `image_token` stands for a piece of a picture."""
    full: Any = model.full
    ids, mask = pad_rows(rows, model.pad_token, side="left")
    inputs = picture_inputs(ids, pixels, image_token, model.device)
    with _greedy(full, model, max_new_tokens) as rules:
        made = full.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=rules, **inputs
        )
    texts = model.tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
    return [" ".join(text.split()) for text in texts]


@contextmanager
def _greedy(full: Any, model: LanguageModel, max_new_tokens: int) -> Iterator[Any]:
    """Plain greedy search: the model's own generation settings (sampling, penalties) step aside, but for its ends."""
    from transformers import GenerationConfig

    own = full.generation_config
    ends = own.eos_token_id if own is not None and own.eos_token_id is not None else model.end_token
    rules = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=model.pad_token, use_cache=True
    )
    full.generation_config = rules  # unset values would be taken from here
    try:
        yield rules
    finally:
        full.generation_config = own
