"""Settings of vectors of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tessera.settings.language import ByModel, Sharded
from tessera.settings.recipes.base import Finish, RecipeSettings
from tessera.settings.references import PictureEncoderName

if TYPE_CHECKING:
    from tessera.settings.config import Config


class ImageTable(ByModel, Sharded, Finish, RecipeSettings):
    """Pooled vectors of the items' pictures by a picture encoder: CLIP, SigLIP, SigLIP 2 or DINOv2, as it is."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.image:ImageRecipe"
    recipe: Literal["image"] = "image"
    model: PictureEncoderName
    """Name under `models`: a folder or a repository of a picture encoder. Of `type` it takes `auto`."""
    pooling: Literal["auto", "projection", "pooler", "first", "mean"] = "auto"
    """`projection`: CLIP's vector that is compared with texts; `pooler`: what the encoder sums a picture up by (SigLIP:
    its attention head; CLIP and DINOv2: the first token after the last norm); `first`: the first token's last state
    (SigLIP has none); `mean`: of the patches. `auto` is the projection where there is one, else the pooler."""
    batch: int = Field(64, ge=1)
    """Pictures encoded at once."""

    def modalities(self, config: Config) -> frozenset[str]:
        """The picture alone."""
        return frozenset({"image"})

    def reads_pictures(self, source: str) -> bool:
        """It looks at nothing else."""
        return True
