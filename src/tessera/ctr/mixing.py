"""RankMixer (Zhu et al., 2025, arXiv 2507.15551): features as tokens that are mixed without weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenNetwork(nn.Module):
    """A feed-forward network a token, each with weights of its own."""

    decays = True

    def __init__(self, tokens: int, width: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.widen = nn.Parameter(torch.randn(tokens, width, inner) * width**-0.5)
        self.narrow = nn.Parameter(torch.randn(tokens, inner, width) * inner**-0.5)
        # flat, as biases do not decay
        self.inner_bias = nn.Parameter(torch.zeros(tokens * inner))
        self.bias = nn.Parameter(torch.zeros(tokens * width))

    def forward(self, states: Tensor) -> Tensor:
        """(rows, tokens, width) -> the same."""
        tokens = states.shape[1]
        inner = F.gelu(torch.einsum("btd,tdk->btk", states, self.widen) + self.inner_bias.view(tokens, -1))
        return torch.einsum("btk,tkd->btd", inner, self.narrow) + self.bias.view(tokens, -1)


def mix(states: Tensor) -> Tensor:
    """Token t of (rows, tokens, width) becomes the t-th part of every token, side by side."""
    rows, tokens, width = states.shape
    return states.view(rows, tokens, tokens, width // tokens).transpose(1, 2).reshape(rows, tokens, width)


class RankMixer(nn.Module):
    """Groups of features, each projected to a token; blocks of mixing and networks; the mean of the tokens."""

    def __init__(self, widths: Sequence[int], width: int, blocks: int, expansion: int) -> None:
        """
        Args:
            widths: of the groups of features.
            width: least width of a token; it is rounded up to a multiple of their number.
            blocks: how many.
            expansion: how much wider the networks are inside.
        """
        super().__init__()
        tokens = len(widths)
        self.width = -(-width // tokens) * tokens
        self.project = nn.ModuleList(nn.Linear(each, self.width) for each in widths)
        self.networks = nn.ModuleList(TokenNetwork(tokens, self.width, expansion) for _ in range(blocks))
        self.mixed, self.thought = (nn.ModuleList(nn.LayerNorm(self.width) for _ in range(blocks)) for _ in range(2))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(rows, width) of the groups (rows, its width)."""
        states = torch.stack([layer(part) for layer, part in zip(self.project, features, strict=True)], 1)
        for mixed, network, thought in zip(self.mixed, self.networks, self.thought, strict=True):
            states = mixed(states + mix(states))
            states = thought(states + network(states))
        return states.mean(1)
