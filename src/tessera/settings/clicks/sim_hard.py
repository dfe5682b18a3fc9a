"""Settings of SIM, hard search."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.clicks.retrieval_base import Retrieval


class SIMHardSettings(Retrieval):
    """Search-based interest model (Pi et al., CIKM 2020), hard search: events of the target's category."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.sim_hard:Model"
    BY_CATEGORY: ClassVar[bool] = True
    model: Literal["sim_hard"] = "sim_hard"
