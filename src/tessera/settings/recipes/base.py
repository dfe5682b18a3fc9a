"""What recipes for item tables share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from tessera.settings.base import Settings
from tessera.settings.kinds import Kind, KindOf
from tessera.settings.language import ByModel, ReadText
from tessera.settings.references import ONE_ROW, Need

if TYPE_CHECKING:
    from tessera.settings.config import Config


NO_ROW = "which makes no row of an item that came after training"
"""What is said of a recipe that does not `takes_new`."""


class RecipeSettings(Kind):
    """How an item table is made."""

    LEARNS: ClassVar[bool] = False
    """Whether histories shape it: what is cut off for one test may then be known to another."""
    TRAINS: ClassVar[bool] = False
    """Whether an embedder is trained first, which then embeds."""

    READS_OF_DATASET: ClassVar[dict[str, str]] = {}
    """Files of the dataset that the rows come from, by the name of the input, where no model makes them."""

    recipe: str
    """How the table is made."""

    @classmethod
    def unusable(cls) -> str | None:
        """See `Kind.unusable`."""
        if issubclass(cls, ByModel) and not issubclass(cls, Finish):
            return f"reads the states of a model, so it extends {Finish.__module__}.Finish, too: how they become rows"
        return None

    def reader(self, config: Config) -> ByModel | None:
        """The settings that say which model reads what; None where no model makes the rows."""
        return self if isinstance(self, ByModel) else None

    def modalities(self, config: Config) -> frozenset[str]:
        """What the rows are made from, `image` and `text`: an item that loses one of them has no row any more."""
        reader = self.reader(config)
        return frozenset({"text"}) | reader.captioned(config) if isinstance(reader, ReadText) else frozenset()

    def offers(self) -> frozenset[Need]:
        """One row an item, as most recipes make them."""
        return frozenset({ONE_ROW})

    @property
    def takes_new(self) -> bool:
        """Whether it makes a row of an item that came after training, of which there is a text and no picture."""
        return isinstance(self, ReadText) and ONE_ROW in self.offers()


class Finish(Settings):
    """How pooled states become the rows of a table."""

    pca: int | None = Field(None, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps all."""
    whiten: float = Field(0.5, ge=0, le=1)
    """Divide every component by its standard deviation to this power: 1 makes all equally strong, 0 leaves them as they
    are, as published (with `pca: null` the vectors themselves). What tells items apart is often in weak components,
    which an adapter learns slowly."""
    l2: bool = False
    """Scale every row to length one."""
    shuffle: int | None = Field(None, ge=0)
    """A control: deal the rows out anew among the items that have one, by this seed; null keeps them where they are."""


ItemTable = Annotated[RecipeSettings, KindOf("recipes")]
