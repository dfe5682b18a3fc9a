"""A tokenizer of a catalogue's own texts: byte-level BPE, digits apart."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any


def train_tokenizer(texts: Iterable[str], vocabulary: int, special: Sequence[str]) -> Any:
    """A tokenizer (`tokenizers.Tokenizer`) that knows every byte, so that no text is unknown.

    Args:
        texts: what it is trained on, in an order that is always the same.
        vocabulary: most tokens.
        special: tokens that no text has; their ids are 0, 1, ...
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it warns after a fork, and the texts are short
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True  # a text that has the words of one has no more than the words
    return tokenizer
