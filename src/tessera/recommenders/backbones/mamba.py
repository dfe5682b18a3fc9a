"""Mamba: a selective state space over the items of a history (Gu and Dao, 2023; Mamba4Rec, Liu et al., 2024).

What a layer remembers of an item, and for how long, depends on the item (section 3.2). The state has one size however
long the history is, so time grows linearly with length.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.base import CausalBackbone
from tessera.recommenders.backbones.dropout import Dropout
from tessera.recommenders.backbones.selective_scan import selective_scan
from tessera.settings.backbones.mamba import MambaSettings

_STEPS = (1e-3, 1e-1)
"""Step sizes at the start lie between, evenly in logarithm, as in Mamba's code."""


class SelectiveLayer(nn.Module):
    """The block of Mamba (Gu and Dao, figure 3): each position from itself and those before it."""

    def __init__(self, dim: int, state_dim: int, expand: int, convolution: int) -> None:
        super().__init__()
        channels = dim * expand
        self.split = [max(1, math.ceil(dim / 16)), state_dim, state_dim]
        self.project_in = nn.Linear(dim, 2 * channels, bias=False)
        self.convolution = nn.Conv1d(channels, channels, convolution, groups=channels, padding=convolution - 1)
        self.select = nn.Linear(channels, sum(self.split), bias=False)
        self.step = nn.Linear(self.split[0], channels)
        self.log_rates = nn.Parameter(torch.empty(channels, state_dim))
        self.skip = nn.Parameter(torch.empty(channels))
        self.project_out = nn.Linear(channels, dim, bias=False)
        self._start()

    def _start(self) -> None:
        """Rates 1 to `state_dim`, steps of all sizes.

        The linear layers keep torch's wide start: the output is a product of three projections, and with the narrow
        start of the other backbones its gradient is lost.
        """
        with torch.no_grad():
            self.log_rates.copy_(torch.arange(1, self.log_rates.shape[1] + 1).log().expand_as(self.log_rates))
            self.skip.fill_(1.0)
            nn.init.uniform_(self.step.weight, -(self.split[0] ** -0.5), self.split[0] ** -0.5)
            low, high = (math.log(size) for size in _STEPS)
            sizes = torch.empty_like(self.step.bias).uniform_(low, high).exp()
            self.step.bias.copy_(sizes + torch.log(-torch.expm1(-sizes)))  # softplus gives the sizes again

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, dim) to the same."""
        inputs, gate = self.project_in(x).chunk(2, dim=2)
        convolved = self.convolution(inputs.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        inputs = F.silu(convolved)
        step, enter, leave = self.select(inputs).split(self.split, dim=2)
        # under autocast a product of many decays would lose what is far back
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.log_rates.dtype
            inputs, step, enter, leave = (part.to(dtype) for part in (inputs, step, enter, leave))
            read = selective_scan(inputs, F.softplus(self.step(step)), -self.log_rates.exp(), enter, leave)
            read = read + inputs * self.skip
        out: Tensor = self.project_out(read * F.silu(gate))
        return out


class Mamba(CausalBackbone):
    """Selective layers, each after a norm and around a residual."""

    def __init__(self, settings: MambaSettings) -> None:
        super().__init__()
        self.dim = settings.dim
        self.max_length = settings.max_length
        self.dropout = Dropout(settings.dropout)
        self.norm_in = nn.LayerNorm(settings.dim)
        self.norms = nn.ModuleList(nn.LayerNorm(settings.dim) for _ in range(settings.layers))
        self.layers = nn.ModuleList(
            SelectiveLayer(settings.dim, settings.state_dim, settings.expand, settings.convolution)
            for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.dim)

    def hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, dim) states; what runs on over the padding on the right is never read."""
        x = self.dropout(self.norm_in(inputs))
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + self.dropout(layer(norm(x)))
        normed: Tensor = self.norm(x)
        return normed
