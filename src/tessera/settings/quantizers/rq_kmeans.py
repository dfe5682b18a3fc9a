"""Settings of residual k-means."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.quantizers.base import Codes


class RQKMeans(Codes):
    """Residual k-means: no encoder, no gradient (by faiss for large catalogues)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.quantization.rq_kmeans"
    quantizer: Literal["rq_kmeans"] = "rq_kmeans"
    iterations: int = Field(50, ge=1)
    """Most iterations of k-means a level."""
    engine: Literal["torch", "faiss"] = "torch"
    """Who runs k-means: our own, or faiss."""
    normalize_residuals: bool = False
    """Scale residuals to length one before each level, as GRID does."""
