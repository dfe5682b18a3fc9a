"""Autoencoders that start as principal components instead of random numbers.

A ReLU network can carry a number a unchanged: one unit holds relu(a), another relu(-a), and their difference is a. An
encoder and a decoder whose layers carry the first principal components so begin with the least squared error that any
linear map of their width has, and with latent vectors whose distances mean something when k-means looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tessera.data.principal import principal_directions


@torch.no_grad()
def start_at_components(encoder: nn.Sequential, decoder: nn.Sequential, rows: Tensor) -> int:
    """Let encoder and decoder begin as the first principal components of the rows, and their inverse.

    Components enter the latent vector on the scale on which its mean square is the share of the variance that they
    hold. Units that carry none keep their random weights from what is before them, and begin without a say in what the
    others carry; so does the rest of the latent vector, which the encoder leaves at zero at first.

    Args:
        encoder: linear layers with ReLU between, (n, width) -> (n, dim).
        decoder: the same backwards.
        rows: (n, width) of mean zero and mean square one.
    Returns:
        How many components are carried: two hidden units each.
    """
    layers = [[layer for layer in part if isinstance(layer, nn.Linear)] for part in (encoder, decoder)]
    width, dim = layers[0][0].in_features, layers[0][-1].out_features
    directions, _ = principal_directions(np.asarray(rows.cpu()), np.zeros(width))
    narrowest = min((layer.out_features for layer in layers[0][:-1]), default=2 * dim)
    count = min(dim, narrowest // 2, len(directions))
    scale = (dim / width) ** 0.5
    components = torch.from_numpy(directions[:count]).to(rows)
    _carry(layers[0], scale * components, torch.eye(count).to(rows))
    _carry(layers[1], torch.eye(count).to(rows), components.T / scale)
    layers[0][-1].weight[count:] = 0.0
    return count


def _carry(layers: Sequence[nn.Linear], first: Tensor, last: Tensor) -> None:
    """Let a perceptron compute last @ first @ x in its first inputs and outputs, as far as its random units go silent.

    Args:
        layers: at least one.
        first: (count, inputs) what is carried of the inputs.
        last: (outputs, count) what becomes of it.
    """
    count = len(first)
    reads = first  # (count, units before) how the carried numbers are read from the layer before
    for layer in layers[:-1]:
        layer.weight[: 2 * count] = 0.0
        layer.weight[: 2 * count, : reads.shape[1]] = torch.cat([reads, -reads])
        reads = torch.cat([torch.eye(count), -torch.eye(count)], 1).to(first)
    made = last @ reads
    layers[-1].weight[: len(made)] = 0.0
    layers[-1].weight[: len(made), : made.shape[1]] = made
