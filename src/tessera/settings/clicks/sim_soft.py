"""Settings of SIM, soft search."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.clicks.retrieval_base import Retrieval


class SIMSoftSettings(Retrieval):
    """Search-based interest model (Pi et al., CIKM 2020), soft search: largest inner products."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.sim_soft:Model"
    model: Literal["sim_soft"] = "sim_soft"
    search_weight: float = Field(1.0, gt=0)
    """Weight of the loss that trains the vectors of the search."""
