"""Supervised contrastive fine-tuning of LLMEmb (AAAI 2025): an item's vector is the pooled states of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tessera.embedding.contrastive import ContrastiveRecipe
from tessera.language.prompts import domain_sentence
from tessera.language.reasoning import ReasoningAttention
from tessera.language.states import pool, read_states
from tessera.language.tokens import Frame, plain_frame
from tessera.settings.recipes.scft import SCFTTable

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


class Pooler(nn.Module):
    """Pooled states of the text."""

    def __init__(self, model: LanguageModel, table: SCFTTable) -> None:
        super().__init__()
        self.model, self.tower, self.table = model, model.tower, table

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, width) of token ids and mask (batch, length)."""
        return pool(read_states(self.model, ids, mask, which=self.table.states), mask, self.table.pooling)


class SCFTRecipe(ContrastiveRecipe):
    """LLMEmb."""

    settings: SCFTTable

    def frame(self, training: bool = False) -> Frame:
        """The domain sentence, a newline, the attributes, the end token; no chat template."""
        return plain_frame(self.given.model, f"{domain_sentence(self.given.prompt.domain)}\n")

    def encoder(self, attention: ReasoningAttention | None) -> Pooler:
        """See `ContrastiveRecipe.encoder`."""
        return Pooler(self.given.model, self.settings)
