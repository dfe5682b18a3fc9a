"""Settings of TWIN."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.clicks.retrieval_base import Retrieval


class TWINSettings(Retrieval):
    """Two-stage interest network (Chang et al., KDD 2023): one attention score retrieves and weighs."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.twin:Model"
    model: Literal["twin"] = "twin"
