"""Settings of balanced residual k-means."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.quantizers.base import Codes


class BalancedRQKMeans(Codes):
    """Residual k-means whose clusters hold like many items: a bound on the largest, kept by assignment."""

    IMPLEMENTATION: ClassVar[str] = "tessera.quantization.balanced_rq_kmeans"
    quantizer: Literal["balanced_rq_kmeans"] = "balanced_rq_kmeans"
    iterations: int = Field(20, ge=1)
    """Most iterations a level."""
    slack: float = Field(1.0, ge=1)
    """Most items of a cluster, as a multiple of items / codes."""
