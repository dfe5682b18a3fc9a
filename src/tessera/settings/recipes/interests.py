"""Settings of written interests of typical users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tessera.settings.base import Seed
from tessera.settings.language import ReadText
from tessera.settings.recipes.base import Finish, RecipeSettings
from tessera.settings.references import INTERESTS, DecoderName, Need

if TYPE_CHECKING:
    from tessera.settings.config import Config


class InterestsTable(ReadText, Finish, RecipeSettings):
    """What typical users are interested in, in words and as vectors: the semantic side of EIMF-style learning."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.interests:InterestsRecipe"
    LEARNS: ClassVar[bool] = True
    READS_OF_DATASET: ClassVar[dict[str, str]] = {
        "interactions": "data/interactions.parquet", "users": "data/users.parquet",
    }  # fmt: skip
    recipe: Literal["interests"] = "interests"
    writer: DecoderName | None = None
    """Name under `models`: who writes the interests, as JSON, from the titles of a history; null counts attributes and
    words of titles instead, which needs no such model. `model` reads items and interests alike."""
    most: int = Field(4, ge=1, le=64)
    """Interests of a user, at most."""
    share: float = Field(0.1, gt=0, le=1)
    """Of the users, whose interests are written."""
    choose: Literal["clusters", "random"] = "clusters"
    """Those nearest to the middles of clusters, or, as a control, any."""
    clusters: int = Field(32, ge=1)
    """Clusters of histories; fewer where there are fewer users."""
    seed: Seed = 1
    """Of the clustering, and of the control."""
    least: int = Field(3, ge=1)
    """Items that a history must have to say anything of interests; its last training item, which is predicted from
    them, is not counted and not told."""
    longest: int = Field(30, ge=1)
    """Items of a history that are told, the latest ones."""
    attempts: int = Field(3, ge=1, le=10)
    """Times that a writer is asked, each time told what was wrong; then the user is dropped, and counted."""
    max_new_tokens: int = Field(512, ge=16)
    """Longest answer of a writer in tokens."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a writer, or of clusters, that there are none of."""
        yield from super().unread()
        if self.writer is None:
            yield "is of a writer, and there is none: attributes and words are counted", ("attempts", "max_new_tokens")
        if self.choose == "random":
            yield "is of choose: clusters, and random has none", ("clusters",)

    def modalities(self, config: Config) -> frozenset[str]:
        """None that an item could lose: rows are of users."""
        return frozenset()

    def offers(self) -> frozenset[Need]:
        """Rows of users, and none of items."""
        return frozenset({INTERESTS})
