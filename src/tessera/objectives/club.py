"""CLUB: an upper bound of mutual information, by a fitted conditional law (Cheng et al., ICML 2020).

With the true q(y | x) the bound is E[log q(y | x)] - E[log q(y' | x)], y' independent of x, and never below the mutual
information. The law is fitted by likelihood on what the bound is then asked about, by an optimiser of its own: a law
that were trained to make the bound small would make it meaningless.
"""

from __future__ import annotations

from torch import Tensor, nn

_SMALLEST, _LARGEST = -8.0, 8.0
"""Of log variances: beyond, one row could outweigh all others."""


class ConditionalNormal(nn.Module):
    """q(y | x): independent normal laws, whose means and log variances two small networks read from x."""

    def __init__(self, entering: int, hidden: int, dim: int) -> None:
        """
        Args:
            entering: width of x.
            hidden: width of the hidden layers.
            dim: width of y.
        """
        super().__init__()
        self.means, self.log_variances = (
            nn.Sequential(nn.Linear(entering, hidden), nn.ReLU(), nn.Linear(hidden, dim)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, dim) means and log variances at x (n, entering)."""
        return self.means(x), self.log_variances(x).clamp(_SMALLEST, _LARGEST)


def likelihood_loss(means: Tensor, log_variances: Tensor, y: Tensor) -> Tensor:
    """() what q is fitted by: the mean over rows of -log q(y | x) without its constant; all arguments (n, dim)."""
    return ((y - means).square() * (-log_variances).exp() + log_variances).sum(1).mean() / 2


def club(means: Tensor, log_variances: Tensor, y: Tensor) -> Tensor:
    """() the bound in nats: the mean over i of log q(y_i | x_i) - mean over j of log q(y_j | x_i).

    All n^2 pairs count, by the first two moments of y, at the cost of n.

    Args:
        means: (n, dim) of q at x.
        log_variances: (n, dim).
        y: (n, dim) what x is to tell little of.
    """
    # squares of differences from the mean of y, so that few digits are lost
    centre = y.mean(0)
    spread = (y - centre).square().mean(0)
    apart = spread + (centre - means).square() - (y - means).square()
    return ((-log_variances).exp() * apart).sum(1).mean() / 2
