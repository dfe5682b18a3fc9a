"""How the gradient passes the choice of a code, which has none of its own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def straight_through(latent: Tensor, code: Tensor) -> Tensor:
    """The code in value, the latent vector in gradient: z + sg[q - z] (van den Oord et al., 2017).

    Args:
        latent: (n, dim) what was quantised.
        code: (n, dim) what it became.
    """
    return latent + (code - latent).detach()


def rotation(latent: Tensor, code: Tensor, epsilon: float = 1e-6) -> Tensor:
    """The code in value; the gradient is turned and scaled as the latent vector would be to become the code.

    With z^, q^ of length one and w = (z^ + q^) / |z^ + q^|, all of them without gradient:
    (|q| / |z|) (z - 2 w (w.z) + 2 q^ (z^.z)) (Fifty et al., 2024, equation 4). Lengths below `epsilon` count as
    `epsilon`, so that vectors of zeros and opposite vectors give numbers.

    Args:
        latent: (n, dim) what was quantised.
        code: (n, dim) what it became.
    """
    z, q = latent.detach(), code.detach()
    z_length = z.norm(dim=1, keepdim=True).clamp(min=epsilon)
    q_length = q.norm(dim=1, keepdim=True).clamp(min=epsilon)
    z_unit, q_unit = z / z_length, q / q_length
    between = z_unit + q_unit
    w = between / between.norm(dim=1, keepdim=True).clamp(min=epsilon)
    turned: Tensor = (
        latent
        - 2 * w * (w * latent).sum(1, keepdim=True)
        + 2 * q_unit * (z_unit * latent).sum(1, keepdim=True)
    )  # fmt: skip
    turned = turned * (q_length / z_length)
    # equal but for rounding, and for the guarded cases, where the value is to be the code all the same
    return turned + (code - turned).detach()


def gumbel(scores: Tensor, temperature: float) -> Tensor:
    """(n, codes) one-hot choices drawn by their scores, with the gradient of soft ones (Jang et al., 2017).

    Args:
        scores: (n, codes) logits; minus the squared distances.
        temperature: of the soft choice.
    """
    choices: Tensor = F.gumbel_softmax(scores, tau=temperature, hard=True, dim=1)
    return choices
