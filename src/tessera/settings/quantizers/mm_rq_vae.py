"""Settings of the multimodal RQ-VAE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from tessera.settings.base import PresetSettings
from tessera.settings.quantizers.base import Conflicts
from tessera.settings.quantizers.learned_base import LearnedCodes
from tessera.settings.references import CODES_A_TABLE, ONE_SEQUENCE, Need


class MMRQVAE(PresetSettings, LearnedCodes):
    """Multimodal RQ-VAE of MME-SID (CIKM 2025): codes of their own for every table, aligned with the first table's."""

    IMPLEMENTATION: ClassVar[str] = "tessera.quantization.mm_rq_vae"
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "first_weights": "random", "commitment": 0.01, "residual_gradient": "straight_through",
        "mse": 0.0, "align_direction": "first",
    }  # fmt: skip
    quantizer: Literal["mm_rq_vae"] = "mm_rq_vae"
    conflicts: Conflicts = "none"
    """Items with the same codes: see the other quantisers; codes that are inputs alone may collide."""
    mmd: float = Field(1.0, ge=0)
    """Weight of the reconstruction by maximum mean discrepancy, which compares clouds of vectors and not pairs."""
    mse: float = Field(1.0, ge=0)
    """Weight of the reconstruction by squared errors, item by item; the paper has none."""
    rec: float = Field(3.0, ge=0)
    """Weight of both reconstructions together."""
    align: Literal["infonce", "mmd", "none"] = "infonce"
    """How quantised vectors of the first table are drawn to those of the others: item by item (the paper), as clouds
    (the first release of its code), or not."""
    align_direction: Literal["both", "first"] = "both"
    """InfoNCE in both directions, or only from the first table's vectors to the others' (the later release)."""
    align_weight: float = Field(0.01, ge=0)
    """Weight of the alignment."""
    align_temperature: float = Field(0.1, gt=0)
    """Temperature of InfoNCE."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of an alignment, or of reconstructions, that there are none of."""
        yield from super().unread()
        of_infonce = ("align_direction", "align_temperature")
        if len(self.tables) == 1:
            yield "is of several tables, and tables names one", ("align", "align_weight", *of_infonce)
        elif self.align == "none":
            yield "is of an alignment, and align: none has none", ("align_weight", *of_infonce)
        elif not self.align_weight:
            yield "is of an alignment, whose align_weight is 0", ("align", *of_infonce)
        elif self.align == "mmd":
            yield "is of align: infonce, and mmd compares clouds", of_infonce
        if not self.rec:
            yield "is of reconstructions, whose weight rec is 0", ("mmd", "mse")

    def offers(self) -> frozenset[Need]:
        """Codes of their own for every table; those of one table are a sequence too."""
        return frozenset({CODES_A_TABLE} | ({ONE_SEQUENCE} if len(self.tables) == 1 else set()))
