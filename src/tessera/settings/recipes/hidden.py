"""Settings of states of a model that is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.language import MAX_PIXELS, OF_PICTURES, ReadText, Sharded
from tessera.settings.recipes.base import Finish, RecipeSettings
from tessera.settings.references import DecoderName

if TYPE_CHECKING:
    from tessera.settings.config import Config


class HiddenTable(ReadText, Sharded, Finish, RecipeSettings):
    """Pooled states of a model that is asked to describe an item, before it answers: DMESR without generated text."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.hidden:HiddenRecipe"
    recipe: Literal["hidden"] = "hidden"
    model: DecoderName
    """Name under `models`: a model that can be asked."""
    source: Literal["image", "text", "both"] = "image"
    """What the model is shown: the picture, the text, or both. Items that lack it have no row."""
    instruction: str | None = None
    """What it is asked; null takes the instruction of the source."""
    pooling: Literal["mean", "last"] = "mean"
    """Mean over all tokens, pieces of the picture included, or the last one, where the answer would begin."""
    batch: int = Field(64, ge=1)
    """Items read at once, of like length."""
    max_pixels: int = Field(MAX_PIXELS, ge=1024)
    """Larger pictures are made smaller: memory and tokens go with pixels."""

    def modalities(self, config: Config) -> frozenset[str]:
        """What the model is shown."""
        return frozenset({"image", "text"} if self.source == "both" else {self.source})

    def reads_pictures(self, source: str) -> bool:
        """The model is shown them, unless it is told of the text alone."""
        return self.source != "text"

    @property
    def takes_new(self) -> bool:
        """Where it is shown the text alone: new items have no pictures."""
        return self.source == "text"

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Keys of texts, for what is read is the model's own form of a question; of pictures that are not shown."""
        yield from super().unread()
        at_once = "does nothing here: items are read `batch` at once, and cut to the model's context"
        yield at_once, ("batch_tokens", "max_tokens")
        if self.source == "text":
            yield OF_PICTURES, ("max_pixels",)

    @model_validator(mode="after")
    def _plain(self) -> HiddenTable:
        if self.captions or self.states != "last":
            raise ValueError("reads an item as the model is asked about it: captions and states cannot be given")
        return self
