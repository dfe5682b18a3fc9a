"""Settings of ETA."""

from __future__ import annotations

from typing import Literal

from tessera.settings.clicks.retrieval_base import Hashed


class ETASettings(Hashed):
    """End-to-end target attention (Chen et al., 2021): nearest hash codes of the current vectors."""

    model: Literal["eta"] = "eta"
