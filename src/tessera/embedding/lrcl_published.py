"""Habits of ReaEmb's published stage I that are thought wrong; `preset: official` has all of them, a key has one.

What each key does, and why it is thought wrong: docs/systems/reaemb.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tessera.embedding.lrcl import LRCLRecipe
from tessera.language.models import LanguageModelError
from tessera.language.probe import called
from tessera.language.prompts import REQUEST
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.language.tokens import Frame, chat_frame

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


def check_decoder(settings: Any, keys: Sequence[str], model: LanguageModel) -> None:
    """Refuse published habits that an encoder cannot have; what a model is may show no earlier than here.

    Args:
        settings: of the recipe.
        keys: of such habits.
        model: what reads.
    Raises:
        LanguageModelError: it is an encoder, and the settings have one.
    """
    if model.kind == "encoder" and (kept := [f"{key}: {getattr(settings, key)}" for key in keys]):
        raise LanguageModelError(
            f"recipe {settings.recipe}: {', '.join(kept)} {'are habits' if len(kept) > 1 else 'is a habit'} of "
            f"decoders, as published, and {called(model)} is an encoder; leave out preset: official and these keys"
        )


class MixedAttention(ReasoningAttention):
    """`rope: mixed`: the frequencies of one convention, rotated by the other, so that scores depend on positions."""

    rope = "mixed"

    def rotate(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Neighbours are turned by frequencies of dimensions i and i + width/2."""
        cos, sin = self.turns(vectors, positions)
        pairs = vectors.reshape(*vectors.shape[:-1], -1, 2)
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
        return vectors * torch.cat([cos, cos], dim=-1) + turned * torch.cat([sin, sin], dim=-1)


class PublishedReasoner(LatentReasoner):
    """`positions: padded` and `two_pass`."""

    def _positions(self, mask: Tensor) -> Tensor:
        if self.settings.positions == "padded":
            return torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        return super()._positions(mask)

    def _reads_again(self) -> bool:
        return self.settings.two_pass or super()._reads_again()


class PublishedLRCL(LRCLRecipe):
    """Stage I as published."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        if self.settings.positions == "padded":
            # the published tokenizer pads on the left when it exports, and positions count the padding then
            self.side = "left"

    def check_model(self) -> None:
        """See `Recipe.check_model`: positions that count the padding are a habit, and no fault of a model."""
        check_decoder(self.settings, self.settings.habits(), self.given.model)
        counting = copy(self)
        counting.settings = self.settings.model_copy(update={"positions": "true"})
        LRCLRecipe.check_model(counting)

    def frame(self, training: bool = False) -> Frame:
        """`prompts: by_stage`: the domain sentence is left out while the embedder learns."""
        if training and self.settings.prompts == "by_stage":
            return chat_frame(self.given.model, f"{REQUEST}\n")
        return super().frame(training)

    def attention(self) -> ReasoningAttention | None:
        """See `LRCLRecipe.attention`."""
        settings, model = self.settings, self.given.model
        if settings.thoughts == 0 or settings.rope != "mixed":
            return super().attention()
        self.check_widths()
        return MixedAttention(model.width, settings.last_tokens).to(model.device)

    def encoder(self, attention: ReasoningAttention | None) -> PublishedReasoner:
        """See `ContrastiveRecipe.encoder`."""
        return PublishedReasoner(self.given.model, attention, self.settings)
