"""Settings of RQ-VAE."""

from __future__ import annotations

from typing import Literal

from tessera.settings.quantizers.learned_base import LearnedCodes


class RQVAE(LearnedCodes):
    """Residual-quantised autoencoder (Lee et al., CVPR 2022; TIGER, NeurIPS 2023)."""

    quantizer: Literal["rq_vae"] = "rq_vae"
