"""What SCFT and LRCL share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.base import PresetSettings, Settings
from tessera.settings.language import ReadText
from tessera.settings.lora import LoRA
from tessera.settings.recipes.base import Finish, RecipeSettings


class SoftContrastive(Settings):
    """The contrastive loss of SCFT and LRCL: cosines with InfoNCE, or the soft targets of the published code.

    Soft targets start from how alike the model finds the items: where it finds all alike, as a small model does, they
    say that nothing is to be told apart, and nothing is learned.
    """

    temperature: float = Field(0.1, gt=0)
    """Initial temperature; it is learned."""
    normalize: bool = True
    """Cosines, or dot products of the states as they are, as published."""
    targets: Literal["attached", "detached", "identity"] = "identity"
    """InfoNCE: only the item itself is right (identity); or soft targets, with gradient, as published, or without."""
    target_temperature: Literal["divide", "multiply"] = "divide"
    """Soft targets: the temperature divides, as in ReaEmb's code, or multiplies, as in LLMEmb's."""


class ContrastiveTable(PresetSettings, ReadText, Finish, RecipeSettings):
    """What SCFT and LRCL share: two views of an item with attributes left out, brought together."""

    LEARNS: ClassVar[bool] = True
    TRAINS: ClassVar[bool] = True
    drop: float = Field(0.4, ge=0, lt=1)
    """Share of the attributes that a view leaves out."""
    views: Literal["fresh", "static"] = "fresh"
    """New views at every step, or one pair an item for the whole training (as published)."""
    lora: LoRA = Field(default_factory=LoRA)
    """What is trained in the language model."""
    recompute: bool = False
    """Keep the states of `batch_tokens` tokens at a time and compute the others again for the gradient: large models in
    little memory, at a third more time, the same numbers."""
    pca: int | None = Field(512, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps all."""
    loss: SoftContrastive = Field(default_factory=SoftContrastive)
    """The contrastive loss."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also a temperature of soft targets that there are none of."""
        yield from super().unread()
        if self.loss.targets == "identity":
            yield "is of soft targets, and targets: identity has none", ("loss.target_temperature",)
