"""A variational information bottleneck on frozen vectors (Alemi et al., ICLR 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from tessera.recommenders.backbones.dropout import Dropout

_SMALLEST, _LARGEST = -10.0, 4.0
"""Of log variances: beyond, a step of the optimiser would overflow."""


class Bottleneck(nn.Module):
    """Vectors as normal laws, of which training reads a draw and the judge the mean.

    They stay in the space of the prior: the divergence to it is that of what is drawn. FindRec's third-party code puts
    the draws on a sphere, where the prior has no mass.
    """

    def __init__(self, entering: int, width: int, dropout: float, variational: bool = True) -> None:
        """
        Args:
            entering: width of the vectors.
            width: of what is made of them.
            dropout: inside.
            variational: false gives the mean alone: a projection of as many layers.
        """
        super().__init__()
        self.width, self.variational = width, variational
        self.layers = nn.Sequential(
            nn.Linear(entering, width),
            nn.LayerNorm(width),
            Dropout(dropout),
            nn.GELU(),
            nn.Linear(width, 2 * width if variational else width),
        )

    def forward(self, vectors: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(n, width) draws, and (n,) how far each vector's law is from the prior; 0 where there is none.

        Args:
            vectors: (n, entering).
            noise: (n, width) standard normal; None takes the means.
        """
        if not self.variational:
            means: Tensor = self.layers(vectors)
            return means, means.new_zeros(len(means))
        means, log_variances = self.layers(vectors).chunk(2, dim=1)
        log_variances = log_variances.clamp(_SMALLEST, _LARGEST)
        drawn = means if noise is None else means + (log_variances / 2).exp() * noise
        return drawn, divergence(means, log_variances)


def divergence(means: Tensor, log_variances: Tensor) -> Tensor:
    """(n,) Kullback-Leibler divergence of normal laws (n, width) from the standard one, in nats."""
    return -0.5 * (1 + log_variances - means.square() - log_variances.exp()).sum(1)
