"""The demo world's own attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from tessera.settings.recipes.base import RecipeSettings
from tessera.settings.references import TRUTH

if TYPE_CHECKING:
    from tessera.settings.config import Config


class LatentTable(RecipeSettings):
    """The demo world's own attributes, one-hot: what a perfect reader of one channel could know."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.vectors:make_table"
    READS_OF_DATASET: ClassVar[dict[str, str]] = {"source": "raw/latents.parquet"}
    recipe: Literal["latent"] = "latent"
    view: Literal["all", "text", "image"] = "all"
    """Every attribute, only those told by the text, or only those shown by the picture."""

    @property
    def takes_new(self) -> bool:
        """Its file may tell of more items than training knew."""
        return True

    def modalities(self, config: Config) -> frozenset[str]:
        """The channels that tell the attributes."""
        return frozenset({"image", "text"} if self.view == "all" else {self.view})

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Only a generated world has true attributes."""
        for name in config.experiment.datasets:
            if name in config.datasets and TRUTH not in config.datasets[name].offers():
                yield "", f"latent tables need source bazaar; {name!r} is another"
