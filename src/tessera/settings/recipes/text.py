"""Settings of pooled states of an untrained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from tessera.settings.language import ReadText
from tessera.settings.recipes.base import Finish, RecipeSettings

if TYPE_CHECKING:
    from tessera.settings.config import Config


class TextTable(ReadText, Finish, RecipeSettings):
    """Pooled states of a model that nothing was trained on."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.text:TextRecipe"
    recipe: Literal["text"] = "text"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over the tokens of the text, or the last one."""
    layer: int = -1
    """Which states: -1 the last layer's, after its norm; 0 the token embeddings."""
    instruction: str | None = None
    """Told before the text, e.g. for instruct encoders; null tells none."""
    only_captions: bool = False
    """Read the captions alone, without the item's own text."""

    @property
    def takes_new(self) -> bool:
        """Unless it reads captions alone: nobody captioned new items."""
        return not self.only_captions

    def modalities(self, config: Config) -> frozenset[str]:
        """Of what captions alone say, the item's own text is no part."""
        return self.captioned(config) if self.only_captions else super().modalities(config)

    @model_validator(mode="after")
    def _reads_something(self) -> TextTable:
        if self.only_captions and not self.captions:
            raise ValueError("only_captions: names no captions to read")
        return self
