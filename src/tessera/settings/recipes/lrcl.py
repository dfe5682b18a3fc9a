"""Settings of ReaEmb's stage I."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tessera.settings.recipes.contrastive_base import ContrastiveTable
from tessera.settings.references import DECODER, REASONING, ModelName, Need
from tessera.settings.training import Steps

if TYPE_CHECKING:
    from tessera.settings.config import Config


class LRCLTable(ContrastiveTable):
    """Latent reasoning by contrastive learning: stage I of ReaEmb (2026)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.lrcl:LRCLRecipe"
    PUBLISHED: ClassVar[str] = "tessera.embedding.lrcl_published:PublishedLRCL"
    HABITS: ClassVar[tuple[str, ...]] = ("rope", "positions", "two_pass", "prompts")
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "views": "static", "rope": "mixed", "positions": "padded", "two_pass": True, "prompts": "by_stage",
        "whiten": 0.0, "loss": {"temperature": 1.0, "normalize": False, "targets": "attached"},
    }  # fmt: skip
    recipe: Literal["lrcl"] = "lrcl"
    model: ModelName
    """Name under `models`. A sentence encoder reads the text twice, the second time with the thought behind it."""
    pooling: Literal["mean", "last", "balanced"] = "mean"
    """Mean over all tokens, as published (the thought is one of a hundred); the last token; or balanced: half the mean
    of the text, half that of thoughts and end token."""
    thoughts: int = Field(1, ge=0)
    """Latent thought tokens, made one after the other; 0 leaves reasoning out."""
    last_tokens: int | None = Field(None, ge=1)
    """The thought looks at so many tokens at the end of the text; null at all of them."""
    rope: Literal["rotate_half", "mixed"] = "rotate_half"
    """Rotary positions in the reasoning attention: the proper ones, or the published mixture of two conventions."""
    positions: Literal["true", "padded"] = "true"
    """Positions count tokens, or padding too, as published."""
    two_pass: bool = False
    """Run the language model twice, as published, instead of once with its cache: other LoRA dropout in each pass."""
    through_first_pass: bool = False
    """Let gradients flow through the making of the thought (the paper stops them)."""
    prompts: Literal["one", "by_stage"] = "one"
    """One prompt for all stages, or a format of its own for each, as published."""
    training: Steps = Field(default_factory=lambda: Steps(steps=2000, batch=512))
    """The training loop."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of thoughts that there are none of."""
        yield from super().unread()
        if not self.thoughts:
            of_thoughts = ("last_tokens", "rope", "positions", "two_pass", "through_first_pass")
            yield "is of thoughts, and thoughts: 0 makes none", of_thoughts

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Published habits are those of decoders; an encoder without thoughts reads nothing behind a text."""
        yield from super().problems(config)
        model = config.models.get(self.model)
        if model is None or DECODER in model.offers():
            return
        for key in self.habits():
            yield key, f"{getattr(self, key)!r} is a published habit of decoders, and {self.model!r} is an encoder"
        if self.pooling == "balanced" and not self.thoughts:
            yield (
                "pooling",
                f"'balanced' weighs what stands behind a text, where {self.model!r}, an encoder, reads nothing under "
                "thoughts: 0; take mean",
            )

    def offers(self) -> frozenset[Need]:
        """Also a model that stage II goes on from; whether it needs thoughts, stage II says."""
        return super().offers() | {REASONING}
