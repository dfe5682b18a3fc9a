"""Settings of BERT4Rec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.attention_base import AttentionBlocks


class BERT4RecSettings(AttentionBlocks):
    """Bidirectional encoder trained on a Cloze task (Sun et al., CIKM 2019)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.bert4rec:BERT4Rec"
    kind: Literal["bert4rec"] = "bert4rec"
    max_length: int = Field(50, ge=2)
    """Longest history read at once, the mask at its end included."""
    mask_probability: float = Field(0.3, gt=0, lt=1)
    """Share of the items of a history that the Cloze task hides."""
    last_only_probability: float = Field(0.3, ge=0, le=1)
    """Share of histories of which a beginning of random length is read and its last item alone is hidden, as it is when
    scoring."""
    distance_bias: bool = True
    """Let attention favour near items from the start, half of the heads those before and half those after (the paper
    has none, and takes far longer to train)."""
    projection: bool = False
    """Put the paper's projection (linear, GELU, norm) before the product with item vectors."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a Cloze task that no history is left for."""
        yield from super().unread()
        if self.last_only_probability == 1:
            yield "is of the Cloze task, and last_only_probability: 1 leaves none", ("mask_probability",)

    @property
    def causal_states(self) -> bool:
        """It looks both ways."""
        return False
