"""The loss of a recommender."""

from __future__ import annotations

from typing import Annotated

from tessera.settings.kinds import Kind, KindOf


class LossSettings(Kind):
    """The loss of a recommender."""

    kind: str
    """Which kind it is."""


Loss = Annotated[LossSettings, KindOf("losses")]
