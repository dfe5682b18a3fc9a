"""The loss of a recommender."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from tessera.settings.kinds import Kind, KindOf


class LossSettings(Kind):
    """The loss of a recommender."""

    ALL_ITEMS: ClassVar[bool] = False
    """Whether a step scores the whole catalogue: then its cost grows with the items."""
    kind: str
    """Which kind it is."""
    cold_items: Literal["negatives", "left_out"] = "negatives"
    """Items without a training interaction: ranked below every target like others, which teaches that nobody wants
    what is new; or left out of the loss, so that their content alone says where they stand."""


Loss = Annotated[LossSettings, KindOf("losses")]
