"""Settings of supervised contrastive fine-tuning on items that stand together in training histories."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.language import ReadText
from tessera.settings.lora import LoRA
from tessera.settings.recipes.base import Finish, RecipeSettings
from tessera.settings.training import Steps


class PairsTable(ReadText, Finish, RecipeSettings):
    """Supervised contrastive fine-tuning on pairs of items of one training history: the plain control of ReaEmb's
    reinforcement, and a recipe of its own."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.pairs:PairsRecipe"
    LEARNS: ClassVar[bool] = True
    TRAINS: ClassVar[bool] = True
    recipe: Literal["pairs"] = "pairs"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over all tokens, or the last one."""
    window: int = Field(5, ge=1)
    """Items of a history are a pair where they stand at most so many places apart."""
    temperature: float = Field(0.1, gt=0)
    """Of InfoNCE on cosines, from an item to the one beside it and back, at the start; it is learned."""
    lora: LoRA = Field(default_factory=LoRA)
    """What is trained in the language model."""
    recompute: bool = False
    """Keep the states of `batch_tokens` tokens at a time and compute the others again for the gradient: large models in
    little memory, at a third more time, the same numbers."""
    pca: int | None = Field(512, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps all."""
    training: Steps = Field(
        default_factory=lambda: Steps(steps=200, batch=128, learning_rate=2.0e-3, warmup_steps=20, schedule="linear")
    )
    """The training loop; a step has so many pairs, and the others' items are the negatives of each."""
