"""Settings of LLMEmb's fine-tuning."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tessera.settings.recipes.contrastive_base import ContrastiveTable
from tessera.settings.training import Steps


class SCFTTable(ContrastiveTable):
    """Supervised contrastive fine-tuning of LLMEmb (AAAI 2025)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.scft:SCFTRecipe"
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "views": "static",
        "whiten": 0.0,
        "loss": {"temperature": 3.0, "target_temperature": "multiply", "normalize": False, "targets": "attached"},
    }
    recipe: Literal["scft"] = "scft"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over all tokens, or the last one."""
    pca: int | None = Field(1536, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps all."""
    training: Steps = Field(default_factory=lambda: Steps(steps=4000, batch=256))
    """The training loop."""
