"""Settings of RQ-VAE."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.quantizers.learned_base import LearnedCodes


class RQVAE(LearnedCodes):
    """Residual-quantised autoencoder (Lee et al., CVPR 2022; TIGER, NeurIPS 2023)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.quantization.rq_vae"
    quantizer: Literal["rq_vae"] = "rq_vae"
