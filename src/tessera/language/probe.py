"""Whether a model reads as a recipe needs it: asked once, of two short texts, before anything is made.

Architectures differ in what they make of padding, of a cache, and of a mask that lets tokens see those after them. Some
fail in the middle of a job, others give a text another vector for every neighbour without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from tessera.language.models import LanguageModelError, reason
from tessera.language.tokens import pad_rows, text_ids

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

Encode = Callable[[Tensor, Tensor], Tensor]
"""Token ids and mask, both (batch, length), to vectors (batch, width)."""

TEXT = "A red lamp, 3 of them: is it for the item?"
SAME, SHORT, LONG = 8, 10, 25
"""Tokens that both texts begin with, which reasoning reads once for both, and of each text."""
EXACT, ROUNDED = 1e-4, 0.25
"""How far a vector may move beside a longer text, as a share of its length. In float32 rounding moves it by 2e-6 at
most (random models of 28 layers), and the least fault that was met, landmarks that average padding in, by 8e-4. In
bfloat16 rounding moves it by 5e-3 to 6e-2, the most where it has a say in which experts are asked."""
WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size", "local": "window_size"}
"""Kinds of layers that see some tokens back alone, and the keys of config.json that say how many. A config that does
not tell layers apart has one kind."""
_OF_THE_MACHINE = re.compile(r"CUDA|CUBLAS|cuDNN|alloc|deterministic")
"""In errors that say nothing of the model: of the device, of its memory, of the order in which it adds."""
COUNTED_IN_MEMORY = frozenset({"mpt"})
"""Types of decoders whose attention weakens with places in memory, padding included, whatever positions are given."""
DECODERS = "another decoder, such as Qwen2.5 or Llama"
INSTEAD = f"use {DECODERS}, or an encoder, such as BERT"


def called(model: LanguageModel) -> str:
    """A model as messages name it: where it was read from, and its type."""
    config: Any = model.full.config
    return f"{config._name_or_path or 'the model'} ({config.model_type})"


def check_alone(
    model: LanguageModel, encode: Encode, what: str, most: int,
    side: Literal["right", "left"] = "right", instead: str = INSTEAD, plain: Encode | None = None,
) -> None:  # fmt: skip
    """Refuse a model that gives a text another vector beside a longer one than alone, or that cannot be read so.

    Args:
        model: in evaluation mode.
        encode: the very way in which texts will be read.
        what: reads, for messages.
        most: tokens of a text.
        side: where texts are padded.
        instead: what to use.
        plain: another way to the same vectors, to which a text alone is compared: without a cache.
    Raises:
        LanguageModelError: it is such a model.
    """
    short, long = texts(model, most)
    with _untouched(model):
        alone = _read(model, plain or encode, [short], side, what, instead)[0]
        beside = _read(model, encode, [short, long], side, what, instead)[0]
    length = float(alone.norm())
    if not 0 < length < math.inf:
        raise LanguageModelError(
            f"{what}: {called(model)} gives a text a vector of length {length}, expected a finite number above 0; look "
            "at its weights, or set another dtype"
        )
    moved = float((beside - alone).norm()) / length
    if not moved <= tolerance(model):  # also where it is no number
        raise LanguageModelError(
            f"{what}: {called(model)} gives a text another vector beside a longer one than alone (it moves by "
            f"{100 * moved:.2g} % of its length): padding has a say in what it reads or keeps of a text; {instead}"
        )


def check_both_ways(model: LanguageModel, read: Encode, what: str, instead: str) -> None:
    """Refuse a model whose tokens do not see those after them, though they are asked to.

    Args:
        model: in evaluation mode.
        read: token ids and mask to states (batch, length, width).
        what: reads, for messages.
        instead: what to use.
    Raises:
        LanguageModelError: the last token of a text has no say in the states of those before it.
    """
    first = texts(model, SHORT)[0]
    # of a tokenizer that knows none of these words all tokens are the same
    others = [token for token in (*first, model.end_token, model.pad_token) if token != first[-1]]
    if not others:
        return
    other = [*first[:-1], others[0]]
    with _untouched(model):
        before, after = (_read(model, read, [row], "right", what, instead)[0, :-1] for row in (first, other))
    moved = float((after - before).norm() / before.norm())
    # of a causal model the states are the same to the last bit: equal rows of equal products
    if moved <= tolerance(model) / 1000:
        raise LanguageModelError(
            f"{what}: in {called(model)} no token sees those after it, whatever mask it is given: its architecture is "
            f"causal; {instead}"
        )


def check_window(model: LanguageModel, most: int, what: str) -> None:
    """Refuse a decoder that counts in memory how far back a token sees, where a text may be longer.

    Thoughts and end token stand behind the padding there: of a padded text they would see little.

    Args:
        model: any; what stands behind an encoder's text stands before its padding.
        most: tokens of a text with what follows it.
        what: reads, for messages.
    Raises:
        LanguageModelError: its window is smaller, or what is far counts less.
    """
    if model.kind == "encoder":
        return
    config: Any = model.full.config
    if config.model_type in COUNTED_IN_MEMORY:
        raise LanguageModelError(
            f"{what}: {called(model)} counts padding as distance: thoughts and end token stand behind it, so that the "
            f"vector of a text would depend on its neighbours; use {DECODERS}"
        )
    sees = window(config.get_text_config())
    if sees is not None and sees < most:
        raise LanguageModelError(
            f"{what}: layers of {called(model)} see {sees} tokens back, and texts have up to {most}: thoughts and end "
            f"token stand behind the padding, and of the shorter texts of a batch they would see little; set "
            f"max_tokens: {sees} or less, or use {DECODERS}"
        )


def window(config: Any) -> int | None:
    """How many tokens back the layers see that see the least; None where all see everything.

    Args:
        config: of the text part, as transformers reads it.
    """
    layers = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    sizes = [
        size
        for kind, key in WINDOWS.items()
        if isinstance(size := getattr(config, key, None), int) and size > 0 and (not layers or kind in layers)
    ]
    return min(sizes, default=None)


def tolerance(model: LanguageModel) -> float:
    """How far rounding may move a vector, as a share of its length."""
    embedding: Any = model.full.get_input_embeddings()  # type: ignore[operator]
    exact = embedding.weight.dtype in (torch.float32, torch.float64) and not model.quantized
    return EXACT if exact else ROUNDED


def texts(model: LanguageModel, most: int) -> tuple[list[int], list[int]]:
    """Token rows of a short and a longer text, of at most so many tokens, that begin alike."""
    ids = text_ids(model.tokenizer, [TEXT])[0]
    row = (ids * LONG)[:LONG]
    # the longer one backwards behind what both begin with: other tokens than the short one's
    long = [*row[:SAME], *row[:SAME:-1], row[SAME]][:most]
    return row[: max(1, min(SHORT, len(long) * SHORT // LONG))], long


@contextmanager
def _untouched(model: LanguageModel) -> Iterator[None]:
    """What is drawn here is drawn again later: no result depends on the probe."""
    tower: Any = model.tower
    attention = getattr(tower, "attention_type", None)
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        yield
        if attention is not None and tower.attention_type != attention:  # BigBird's changes for good at a short text
            tower.set_attention_type(attention)


@torch.no_grad()
def _read(
    model: LanguageModel, encode: Encode, rows: list[list[int]], side: Literal["right", "left"], what: str, instead: str
) -> Tensor:
    ids, mask = pad_rows(rows, model.pad_token, side)
    try:
        return encode(ids.to(model.device), mask.to(model.device)).float()
    except (LanguageModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever architectures raise that take other arguments, or keep no keys and values
        if isinstance(error, RuntimeError) and _OF_THE_MACHINE.search(str(error)):
            raise
        raise LanguageModelError(f"{what}: {called(model)} cannot be read so: {reason(error)}; {instead}") from None
