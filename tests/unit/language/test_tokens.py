"""Frames survive cuts; batches waste little; padding on either side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tessera.language.built import train_tokenizer
from tessera.language.tokens import Frame, chat_frame, length_batches, pad_rows, plain_frame, tokenize
from tessera.settings.language import BuiltModel

WORDS = ["<pad>", "<end>", "system", "user", "You", "are", "red", "blue", "round", "?", "tell", ":", "\u2042"]


def tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a word; unknown words are `?`."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="?")
    made.chat_template = template
    return made


def language_model(template: str | None = None) -> Any:
    return SimpleNamespace(tokenizer=tokenizer(template), kind="decoder", end_token=1)


def test_plain_frame() -> None:
    assert plain_frame(language_model(), "tell :") == Frame((10, 11), (1,))
    assert plain_frame(language_model(), "", end=False) == Frame((), ())


@pytest.mark.parametrize("before", ["", "tell :"])
def test_an_encoders_own_tokens_stand_around_the_text(before: str) -> None:
    model = language_model()
    model.kind = "encoder"
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="user $A <end>", special_tokens=[("user", 3), ("<end>", 1)]
    )
    told = model.tokenizer(f"{before} red blue".strip())["input_ids"]
    rows, _ = tokenize(["red blue"], plain_frame(model, before), model.tokenizer, 20)
    assert rows == [told]


@pytest.mark.parametrize("before", ["", "tell :"])
def test_a_decoders_own_start_token_stands_before_the_text(before: str) -> None:
    """Llama's and Gemma's; what their tokenizers put behind a text is not taken: the end token is the model's."""
    model = language_model()
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="user $A", special_tokens=[("user", 3)]
    )
    told = model.tokenizer(f"{before} red blue".strip())["input_ids"]
    assert told[0] == 3
    rows, _ = tokenize(["red blue"], plain_frame(model, before), model.tokenizer, 20)
    assert rows == [[*told, 1]]
    rows, _ = tokenize(["red blue"], chat_frame(model, before, system=""), model.tokenizer, 20)
    assert rows == [told]  # without a template


def test_control_tokens_in_a_text_are_text() -> None:
    built = train_tokenizer(["title is Oak lamp"], BuiltModel(built="qwen2.5-vl"))
    told = "lamp <|im_end|> of <|image_pad|>"
    assert set(built.all_special_ids) & set(built(told)["input_ids"])
    rows, _ = tokenize([told, "Oak"], Frame((), ()), built, 99)
    assert not set(built.all_special_ids) & {token for row in rows for token in row}
    assert built.decode(rows[0]) == told
    assert rows[1] == built("Oak", add_special_tokens=False)["input_ids"]


TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} <end> {% endfor %}"


def test_chat_frame_puts_the_text_where_the_user_speaks() -> None:
    frame = chat_frame(language_model(TEMPLATE), "tell ")
    assert frame.before[0] == 2
    assert frame.before[-3:] == (3, 11, 10)
    assert frame.after == (1,)


def test_a_tokenizer_without_a_chat_template_gets_plain_words() -> None:
    frame = chat_frame(language_model(), "now: tell ")
    assert frame.before[:2] == (4, 5)
    assert frame.before[-1] == 10
    assert frame.after == ()


def test_a_long_text_loses_its_end_and_the_frame_stays() -> None:
    frame = Frame((10, 11), (1,))
    rows, cut = tokenize(["red blue round", "red"], frame, tokenizer(), 5)
    assert rows == [[10, 11, 6, 7, 1], [10, 11, 6, 1]]
    assert cut == 1
    with pytest.raises(ValueError, match="the prompt around each text has 3 tokens, and both together may have 3 "):
        tokenize(["red"], frame, tokenizer(), 3)


def test_batches_hold_every_row_once_and_waste_little() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 3000)
    batches = length_batches(lengths, 4000)
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert all(len(batch) * lengths[batch].max() <= 4000 for batch in batches)
    assert padded / lengths.sum() < 1.1
    assert [batch.tolist() for batch in length_batches(np.array([9000]), 100)] == [[0]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(side: Any) -> None:
    ids, mask = pad_rows([[5, 6, 7], [8]], 0, side)
    assert ids.tolist()[1] == ([8, 0, 0] if side == "right" else [0, 0, 8])
    assert torch.equal(mask, (ids != 0).long())
