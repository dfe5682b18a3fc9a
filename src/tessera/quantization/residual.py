"""Codebooks that learn: residual quantisation with its losses, moving averages, and the revival of unused codes.

All squared errors here are means over batch, dimensions and levels, as in LC-Rec and MME-SID; where they are sums over
dimensions (as in some other code) the same weight of the commitment counts `dim` times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.quantization.base import nearest, squared_distances
from tessera.quantization.estimators import gumbel, rotation, straight_through
from tessera.quantization.kmeans import kmeans, sums
from tessera.settings.quantizers.learned_base import LearnedCodes

LAPLACE = 1e-5
"""Added to counts of moving averages (Laplace smoothing)."""
START_ITERATIONS = 20
"""Most iterations of the k-means that codebooks start from."""


@dataclass
class Quantized:
    """What residual quantisation makes of latent vectors."""

    codes: Tensor
    """(n, levels) int64."""
    vectors: Tensor
    """(n, dim) sums of the code vectors, with the estimator's gradient."""
    loss: Tensor
    """() codebook and commitment."""


class ResidualCodebooks(nn.Module):
    """Residual quantisation: each level has a codebook for what the levels before left over (Lee et al., CVPR 2022)."""

    unused: Tensor
    decays = True
    """Codebooks decay as the layers around them do."""

    def __init__(self, settings: LearnedCodes) -> None:
        super().__init__()
        self.settings = settings
        self.sizes = settings.sizes
        for level, size in enumerate(self.sizes):
            start = torch.empty(size, settings.dim).uniform_(-1 / size, 1 / size)
            if settings.codebook == "loss":
                self.register_parameter(f"codebook_{level}", nn.Parameter(start))
            else:
                self.register_buffer(f"sums_{level}", start)
                self.register_buffer(f"counts_{level}", torch.ones(size))
        # steps since a code was chosen last, all levels one after the other
        self.register_buffer("unused", torch.zeros(sum(self.sizes), dtype=torch.int64))
        self.moved: list[tuple[Tensor, Tensor]] = []
        """(codebook, rows) that were revived in this step: what the optimiser remembers of them is to be forgotten."""

    def codebook(self, level: int) -> Tensor:
        """(codes, dim) of a level: the parameter, or the moving sums over their smoothed counts."""
        if self.settings.codebook == "loss":
            codebook: Tensor = getattr(self, f"codebook_{level}")
            return codebook
        counts: Tensor = getattr(self, f"counts_{level}")
        total = counts.sum()
        smooth = (counts + LAPLACE) / (total + len(counts) * LAPLACE) * total
        sums: Tensor = getattr(self, f"sums_{level}")
        return sums / smooth[:, None]

    @property
    def codebooks(self) -> list[Tensor]:
        """All of them, without gradient."""
        return [self.codebook(level).detach() for level in range(len(self.sizes))]

    @torch.no_grad()
    def _place(self, level: int, rows: Tensor, vectors: Tensor) -> None:
        """Put code vectors (k, dim) at rows (k,)."""
        if self.settings.codebook == "loss":
            self.codebook(level).index_copy_(0, rows, vectors)
        else:
            getattr(self, f"sums_{level}").index_copy_(0, rows, vectors)
            getattr(self, f"counts_{level}").index_fill_(0, rows, 1.0)

    @torch.no_grad()
    def start(self, latent: Tensor) -> None:
        """Codebooks from k-means of (n, dim) latent vectors and what each level leaves of them."""
        for level, size in enumerate(self.sizes):
            clusters = kmeans(latent, size, START_ITERATIONS, (self.settings.seed, level))
            self._place(level, torch.arange(size, device=latent.device), clusters.centres)
            latent = latent - clusters.centres[clusters.assigned]

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (n, dim) latent vectors; in training mode codes are counted, moved and revived."""
        settings = self.settings
        residual, total = latent, torch.zeros_like(latent)
        loss = latent.new_zeros(())
        chosen = []
        self.moved = []
        training = self.training and len(latent) > 0
        revive = training and settings.revive_after > 0 and bool((self.unused >= settings.revive_after).any())
        for level in range(len(self.sizes)):
            if revive:
                self._revive(level, residual.detach())
            codebook = self.codebook(level)
            if self.training and settings.estimator == "gumbel":
                weights = gumbel(-squared_distances(residual, codebook), settings.gumbel_temperature)
                choice = weights.argmax(1)
                total = total + weights @ codebook
            else:
                choice = nearest(residual.detach(), codebook.detach())
                total = total + F.embedding(choice, codebook.detach())
            code = F.embedding(choice, codebook)
            loss = loss + settings.commitment * F.mse_loss(residual, code.detach())
            if settings.codebook == "loss":
                loss = loss + F.mse_loss(code, residual.detach())
            elif training:
                self._follow(level, residual.detach(), choice)
            residual = residual - code.detach()
            if settings.residual_gradient == "straight_through":
                # r - (r + sg[q - r]): the value is the same, and nothing of the gradient is left
                residual = residual.detach()
            chosen.append(choice)
        codes = torch.stack(chosen, 1)
        if training:
            self._count(codes)
        if settings.estimator == "straight_through":
            total = straight_through(latent, total)
        elif settings.estimator == "rotation":
            total = rotation(latent, total)
        return Quantized(codes, total, loss / len(self.sizes))

    @torch.no_grad()
    def _follow(self, level: int, residual: Tensor, choice: Tensor) -> None:
        """Moving averages of a level: counts of its codes and sums of the residuals that chose them."""
        total, counts = sums(residual, choice, self.sizes[level])
        kept = self.settings.ema_decay
        getattr(self, f"counts_{level}").mul_(kept).add_(counts, alpha=1 - kept)
        getattr(self, f"sums_{level}").mul_(kept).add_(total, alpha=1 - kept)

    @torch.no_grad()
    def _count(self, codes: Tensor) -> None:
        self.unused += 1
        first = torch.tensor([0, *self.sizes[:-1]], device=codes.device).cumsum(0)
        self.unused[(codes + first).flatten()] = 0

    @torch.no_grad()
    def _revive(self, level: int, residual: Tensor) -> None:
        """Move codes that nothing chose for long onto random residuals of the batch."""
        unused = torch.split(self.unused, list(self.sizes))[level]
        dead = torch.nonzero(unused >= self.settings.revive_after)[:, 0]
        if not len(dead):
            return
        order = torch.randperm(len(residual), device=residual.device)
        rows = order[torch.arange(len(dead), device=residual.device) % len(order)]
        self._place(level, dead, residual[rows])
        unused[dead] = 0
        if self.settings.codebook == "loss":
            self.moved.append((self.codebook(level), dead))


def forget(optimizer: torch.optim.Optimizer, moved: list[tuple[Tensor, Tensor]]) -> None:
    """Zero the optimiser's moments of rows of parameters."""
    for parameter, rows in moved:
        for name, value in optimizer.state.get(parameter, {}).items():
            if name != "step" and value.shape == parameter.shape:
                value[rows] = 0.0
