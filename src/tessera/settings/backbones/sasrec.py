"""Settings of SASRec."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from tessera.settings.backbones.attention_base import AttentionBlocks
from tessera.settings.base import PresetSettings


class SASRecSettings(PresetSettings, AttentionBlocks):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), pre-norm blocks."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.sasrec:SASRec"
    OFFICIAL: ClassVar[dict[str, Any]] = {"causal": False}

    kind: Literal["sasrec"] = "sasrec"
    causal: bool = True
    """A position sees those before it; false lets it see its own target in training, as LLMEmb's and ReaEmb's code."""

    @property
    def causal_states(self) -> bool:
        """As its attention is."""
        return self.causal
