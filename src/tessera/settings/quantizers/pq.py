"""Settings of product quantisation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.quantizers.base import Codes


class ProductQuantization(Codes):
    """Product quantisation: the vector in as many pieces as levels, k-means in each; codes have no order."""

    IMPLEMENTATION: ClassVar[str] = "tessera.quantization.pq"
    quantizer: Literal["pq"] = "pq"
    iterations: int = Field(50, ge=1)
    """Most iterations of k-means a piece."""
