"""A language model that answers one question at a time, and whose answers are kept."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from tessera.artifacts.files import read_json, write_json
from tessera.language.answers import greedy
from tessera.language.models import LanguageModelError
from tessera.language.tokens import chat_frame, tokenize

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

SYSTEM = "You are an expert who finds out what people are interested in."


class Speaker:
    """A language model that answers one question at a time, each once: answers are kept by the hash of the question.

    Alone in its batch, a question has the same answer whichever were answered before.
    """

    def __init__(self, model: LanguageModel, max_new_tokens: int, kept: Path) -> None:
        """
        Args:
            model: a decoder, or a vision-language model.
            max_new_tokens: longest answer.
            kept: folder of answers, named by the model.
        Raises:
            LanguageModelError: it is an encoder, or its context holds no question.
        """
        if model.kind == "encoder":
            raise LanguageModelError("interests are written by decoders and vision-language models; this is an encoder")
        self.model, self.max_new_tokens, self.kept = model, max_new_tokens, kept
        self.frame = chat_frame(model, "", SYSTEM, answer=True)
        self.room = model.context - max_new_tokens
        if self.room <= len(self.frame):
            raise LanguageModelError(
                f"the model reads {model.context} tokens; max_new_tokens ({max_new_tokens}) leaves too few of them"
            )

    def fits(self, prompt: str) -> bool:
        """Whether the model reads a question to its end."""
        return not tokenize([prompt], self.frame, self.model.tokenizer, self.room)[1]

    def say(self, prompt: str) -> str:
        """The answer to a question."""
        name = sha256(json.dumps([SYSTEM, prompt, self.max_new_tokens]).encode()).hexdigest()
        path = self.kept / f"{name}.json"
        if path.exists():
            return str(read_json(path)["answer"])
        rows, _ = tokenize([prompt], self.frame, self.model.tokenizer, self.room)
        (answer,) = greedy(self.model, rows, self.max_new_tokens)
        write_json(path, {"question": prompt, "answer": answer})
        return answer
