"""RQ-VAE (Lee et al., CVPR 2022), as TIGER (NeurIPS 2023, section 3.1) makes semantic IDs with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from tessera.quantization.autoencoder import Part, Passed, fit_autoencoders
from tessera.quantization.base import Fitted
from tessera.quantization.vectors import PartVectors
from tessera.settings.quantizers.rq_vae import RQVAE

__all__ = ["Part", "fit"]


def losses(passed: list[Passed]) -> tuple[Tensor, dict[str, float]]:
    """Squared errors of the reconstruction, and the losses of the codes; both are means over batch and dimensions."""
    (part,) = passed
    reconstruction = F.mse_loss(part.made.float(), part.x)
    loss = reconstruction + part.quantized.loss
    return loss, {
        "reconstruction": float(reconstruction.detach()),
        "codes": float(part.quantized.loss.detach()),
        "cosine": part.cosine(),
    }


def fit(settings: RQVAE, data: Sequence[PartVectors], state: Path) -> Fitted:
    """Train the autoencoder of one part."""
    return fit_autoencoders(settings, data, state, losses)
