"""Popularity as a confounder, and items after which popular ones follow: the causal part of CIDer, carried over."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tessera.recommenders.item_encoders.base import View
from tessera.recommenders.popularity_bins import popularity_bins
from tessera.recommenders.systems.base import TrainingHistories
from tessera.settings.systems.cider import Counterfactual, Popularity


class LogitAdjustment(nn.Module):
    """Scores with log P(i) added while training (Menon et al., ICLR 2021): what popularity explains, none else must."""

    offset: Tensor

    def __init__(self, settings: Popularity, popularity: np.ndarray) -> None:
        """
        Args:
            settings: its strength.
            popularity: (items + 1,) training interactions an item; each counts one more, so that none has none.
        """
        super().__init__()
        counts = popularity[1:].astype(np.float64) + 1
        prior = np.log(counts / counts.sum())
        centred = np.concatenate([[0.0], settings.strength * (prior - prior.mean())]).astype(np.float32)
        self.register_buffer("offset", torch.from_numpy(centred), persistent=False)

    def trained(self, states: Tensor, vectors: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """States (targets, dim + 1) and vectors (items + 1, dim + 1) whose products are the adjusted scores."""
        one = states.new_ones(len(states), 1)
        return torch.cat([states, one], 1), torch.cat([vectors, self.offset[:, None].to(vectors.dtype)], 1)

    def bias(self, vectors: Tensor) -> Tensor | None:
        """Nothing is added when scored."""
        return None


class BinAdjustment(nn.Module):
    """A term of the target's popularity bin c, w phi(z_c) . psi(e_i), while training; its mean over bins when scored.

    z_c is the mean of what tables say of the training items in the bin.
    """

    bin_of: Tensor
    said: Tensor
    share: Tensor

    def __init__(self, settings: Popularity, popularity: np.ndarray, views: list[View], dim: int) -> None:
        """
        Args:
            settings: strength, bins, width.
            popularity: (items + 1,) training interactions an item.
            views: the tables.
            dim: width of item vectors.
        """
        super().__init__()
        bin_of = popularity_bins(popularity, settings.bins)
        self.strength = settings.strength
        means, shares = [], []
        for number in range(1, settings.bins + 1):
            members = torch.from_numpy(np.flatnonzero((bin_of == number) & (popularity > 0)))
            shares.append(float(popularity[members].sum()))
            means.append(torch.cat([_mean(view, members) for view in views]))
        self.register_buffer("bin_of", torch.from_numpy(bin_of), persistent=False)
        self.register_buffer("said", torch.stack(means), persistent=False)
        self.register_buffer("share", torch.tensor(shares) / max(sum(shares), 1.0), persistent=False)
        self.of_bin = nn.Linear(self.said.shape[1], settings.width)
        self.of_item = nn.Linear(dim, settings.width, bias=False)

    def trained(self, states: Tensor, vectors: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """States (targets, dim + width) and vectors (items + 1, dim + width) whose products are the scores given c."""
        confounder = self.strength * self.of_bin(self.said)[self.bin_of[targets] - 1]
        return torch.cat([states, confounder.to(states.dtype)], 1), torch.cat([vectors, self.of_item(vectors)], 1)

    def bias(self, vectors: Tensor) -> Tensor | None:
        """(items + 1,) the mean over bins by their share of the interactions."""
        bias: Tensor = self.of_item(vectors) @ (self.strength * self.share @ self.of_bin(self.said))
        return bias


def _mean(view: View, items: Tensor) -> Tensor:
    """(width,) of what a table says of items, zero where it says nothing."""
    there = view.present()
    own = items[(there if there.ndim == 1 else there.any(1))[items]]
    if not len(own):
        return torch.zeros_like(view.rows(torch.ones(1, dtype=torch.int64))[0])
    return view.rows(own).mean(0)


def shortcuts(settings: Counterfactual, histories: TrainingHistories, popularity: np.ndarray) -> np.ndarray:
    """(items + 1,) bool: frequent items that popular ones follow more than others.

    Of the interactions after an item it is counted how many fall into each popularity bin, over what the bin holds of
    all. An item counts where these rates vary by `variation` or more (standard deviation over mean), and are higher in
    the popular half; the `most` frequent ones are taken.
    """
    bin_of = popularity_bins(popularity, settings.bins)
    mass = np.bincount(bin_of[1:], weights=popularity[1:], minlength=settings.bins + 1)[1:]
    before, after = histories.items[:-1], histories.items[1:]
    same = np.ones(len(before), bool)
    ends = histories.offsets[1:-1] - 1
    same[ends[(ends >= 0) & (ends < len(before))]] = False  # the last of a user and the first of the next
    pairs = before[same] * (settings.bins + 1) + bin_of[after[same]]
    counts = np.bincount(pairs, minlength=len(popularity) * (settings.bins + 1)).reshape(len(popularity), -1)[:, 1:]
    filled = mass > 0
    rates = counts[:, filled] / mass[filled]
    mean = rates.mean(1)
    varies = rates.std(1) >= settings.variation * mean
    half = np.cumsum(mass[filled]) <= mass.sum() / 2
    half[0] = True
    popular = counts[:, filled][:, half].sum(1) / mass[filled][half].sum()
    rest = counts[:, filled][:, ~half].sum(1) / max(1.0, mass[filled][~half].sum())
    chosen = np.flatnonzero((mean > 0) & varies & (popular > rest))
    frequent = chosen[np.argsort(-popularity[chosen], kind="stable")][: settings.most]
    kept = np.zeros(len(popularity), bool)
    kept[frequent] = True
    return kept
