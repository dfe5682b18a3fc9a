"""Latent reasoning by contrastive learning: stage I of ReaEmb (2026). The model thinks before it sums an item up.

As published, which is thought wrong in places: `lrcl_published.py`.
"""

from __future__ import annotations

from typing import ClassVar

from tessera.embedding.contrastive import ContrastiveRecipe
from tessera.language.probe import INSTEAD, check_window
from tessera.language.prompts import REQUEST, domain_sentence
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.language.reasoning_encoder import EncoderReasoner
from tessera.language.tokens import Frame, chat_frame, plain_frame
from tessera.settings.recipes.lrcl import LRCLTable


class LRCLRecipe(ContrastiveRecipe):
    """Stage I, and what stage II goes on from: how an item is told, and the model that thinks about it."""

    settings: LRCLTable
    INSTEAD: ClassVar[str] = f"{INSTEAD}, or a recipe that reads every text once, such as scft, pairs or text"

    def check_model(self) -> None:
        """See `Recipe.check_model`."""
        self.check_window()
        super().check_model()

    def check_window(self) -> None:
        """Refuse a decoder whose window is shorter than a text with what follows it; see `check_window`."""
        most = self.room + self.settings.thoughts + 1
        check_window(self.given.model, most, f"recipe {self.settings.recipe}")

    def frame(self, training: bool = False) -> Frame:
        """A system message, and a user message with a request, the domain sentence and the attributes.

        Thoughts and the end token follow; the encoder appends them. A sentence encoder was taught no requests: it reads
        the domain sentence and the attributes, as in `scft`.
        """
        if self.given.model.kind == "encoder":
            return plain_frame(self.given.model, f"{domain_sentence(self.given.prompt.domain)}\n")
        return chat_frame(self.given.model, f"{REQUEST}\n{domain_sentence(self.given.prompt.domain)}\n")

    @property
    def room(self) -> int:
        """Most tokens of a text with its frame, thoughts and end token left out."""
        return super().room - self.settings.thoughts - 1

    def check_widths(self) -> None:
        """Refuse a model whose states cannot be read as tokens.

        Raises:
            ValueError: they are of another width.
        """
        model = self.given.model
        if model.input_width != model.width:
            raise ValueError(
                f"a thought is a state that is read as a token, but this model has tokens of width {model.input_width} "
                f"and states of {model.width}; take another model, or thoughts: 0"
            )

    def attention(self) -> ReasoningAttention | None:
        """None where there are no thoughts."""
        if self.settings.thoughts == 0:
            return None
        self.check_widths()
        model = self.given.model
        return ReasoningAttention(model.width, self.settings.last_tokens).to(model.device)

    def encoder(self, attention: ReasoningAttention | None) -> LatentReasoner:
        """See `ContrastiveRecipe.encoder`."""
        kind = EncoderReasoner if self.given.model.kind == "encoder" else LatentReasoner
        return kind(self.given.model, attention, self.settings)
