"""RQ-VAE (Lee et al., CVPR 2022), as TIGER (NeurIPS 2023, section 3.1) makes semantic IDs with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F

from tessera.quantization.autoencoder import Part, Passed, fit_autoencoders
from tessera.quantization.base import Fitted
from tessera.quantization.vectors import PartVectors
from tessera.settings.quantizers.rq_vae import RQVAE
from tessera.training.losses import Losses, Term, reported

__all__ = ["Part", "fit"]


def losses(passed: list[Passed]) -> Losses:
    """Squared errors of the reconstruction, and the losses of the codes; both are means over batch and dimensions."""
    (part,) = passed
    reconstruction = F.mse_loss(part.made.float(), part.x)
    return {
        "reconstruction": Term(reconstruction),
        "codes": Term(part.quantized.loss),
        "cosine": reported(part.cosine()),
    }


def fit(settings: RQVAE, data: Sequence[PartVectors], state: Path) -> Fitted:
    """Train the autoencoder of one part."""
    return fit_autoencoders(settings, data, state, losses)
