"""Settings of the causal filter beside attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.attention_base import AttentionBlocks


class FilterSettings(AttentionBlocks):
    """Self-attention beside a causal low-pass over the history, after BSARec (Shin et al., AAAI 2024)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.filter:Filter"

    kind: Literal["filter"] = "filter"
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings and on the outputs of the mixture and the feed-forward layer."""
    share: float = Field(0.7, ge=0, le=1)
    """How much of the mixture is the filter's, the rest attention's (BSARec's alpha); 0 is SASRec."""
    span: float = Field(16.0, ge=2)
    """Items over which the slowest channel of a filter averages at the start, the fastest over 2; all are learned."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a filter that has no share."""
        yield from super().unread()
        if not self.share:
            yield "is of the filter, whose share is 0", ("span",)
