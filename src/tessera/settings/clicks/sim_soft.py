"""Settings of SIM, soft search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tessera.settings.clicks.retrieval_base import Retrieval


class SIMSoftSettings(Retrieval):
    """Search-based interest model (Pi et al., CIKM 2020), soft search: largest inner products."""

    model: Literal["sim_soft"] = "sim_soft"
    search_weight: float = Field(1.0, gt=0)
    """Weight of the loss that trains the vectors of the search."""
