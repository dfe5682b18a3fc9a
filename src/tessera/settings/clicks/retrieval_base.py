"""What click-through models that retrieve share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from pydantic import Field, model_validator

from tessera.settings.base import Width
from tessera.settings.clicks.base import ClickModel


class ShortTerm(ClickModel):
    """Models that read the last events by themselves beside what they find in the long history."""

    short: int = Field(20, ge=0)
    """Last events behind a DIN attention of their own; 0 has none."""
    attention_hidden: list[Width] = Field(default_factory=lambda: [32], min_length=1)
    """Hidden widths of DIN's attention network."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of the attention to no events."""
        yield from super().unread()
        if not self.short:
            yield "is of the last events, and short reads none", ("attention_hidden",)


class Retrieval(ShortTerm):
    """Models that attend to a few retrieved events."""

    retrieves: ClassVar[bool] = True
    k: int = Field(50, ge=1)
    """Events retrieved."""
    heads: int = Field(4, ge=1, le=2**16)
    """Heads of the attention over them."""
    attention_dim: Width = 32
    """Width of all heads together."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Retrieval:
        if self.attention_dim % self.heads:
            raise ValueError(f"attention_dim {self.attention_dim} is not a multiple of heads {self.heads}")
        return self


class Hashed(Retrieval):
    """Models that retrieve by SimHash: signs of random projections of the item vectors."""

    bits: int = Field(32, ge=1, le=62)
    """Signs in a hash code."""
    index: bool = True
    """When serving, compare with the distinct hash codes of a history and not with every event; the result is the
    same."""
