"""Settings of ETA."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.clicks.retrieval_base import Hashed


class ETASettings(Hashed):
    """End-to-end target attention (Chen et al., 2021): nearest hash codes of the current vectors."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.eta:Model"
    model: Literal["eta"] = "eta"
