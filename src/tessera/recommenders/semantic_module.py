"""The semantic side of EIMF-style learning: written interests of typical users, aligned with the users' vectors.

In training alone. Every step draws some typical users; each history is the end of a user's training items but the last,
of which the writer of the interests was told the end, too, and the last item is predicted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from tessera.artifacts.interests import UserInterests
from tessera.evaluation.histories import Histories, slices
from tessera.recommenders.item_encoders.parts import make_adapter, standardized
from tessera.recommenders.systems.base import TrainingHistories
from tessera.settings.systems.eimf import EIMFSystem
from tessera.training.losses import Losses, Term
from tessera.training.phases import Position


class Met(NamedTuple):
    """Typical users of a step."""

    histories: Histories
    """Of n users, with targets."""
    written: Tensor
    """(n, most, width) what is written of each."""
    present: Tensor
    """(n, most) bool."""


class Matches(NamedTuple):
    """Which vector of a user stands for which written interest."""

    users: Tensor
    """(pairs,) rows of the users."""
    vectors: Tensor
    """(pairs,) from 0 to K - 1."""
    written: Tensor
    """(pairs,) from 0 to most - 1."""


class SemanticModule(nn.Module):
    """Written interests, the maps between them and users' vectors, and the two auxiliary tasks."""

    def __init__(self, settings: EIMFSystem, interests: UserInterests, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        self.users = interests.users
        self.present = torch.from_numpy(interests.present)
        # not saved with the weights: the table is an artifact of its own
        self.written = standardized(torch.from_numpy(interests.vectors), self.present)
        width, dim = interests.vectors.shape[2], settings.dim
        prediction = settings.prediction
        back = prediction is not None and prediction.mode == "semantics_from_behaviour"
        forth = settings.matching is not None or (prediction is not None and not back)
        self.to_items = make_adapter([width, *settings.adapter], dim, 0.0) if forth else None
        self.to_words = make_adapter([dim, *settings.adapter[::-1]], width, 0.0) if back else None
        self.items = self.starts = self.ends = np.zeros(0, np.int64)

    def meet(self, histories: TrainingHistories, longest: int) -> None:
        """Take the histories of typical users; the last item of each is its target.

        Raises:
            ValueError: a user of the table is none of the dataset, or has no two training items.
        """
        counts = np.diff(histories.offsets)
        known = self.users <= len(counts)
        if not known.all() or counts[self.users[known] - 1].min(initial=2) < 2:
            raise ValueError(
                "the table of interests is of other histories: a user in it has no two training items; make it again"
            )
        ends = histories.offsets[self.users] - 1
        self.starts = np.maximum(histories.offsets[self.users - 1], ends - longest)
        self.ends, self.items = ends, histories.items

    def draw(self, at: Position, device: torch.device) -> Met:
        """The typical users of a step: other ones at each, the same in all processes and after a kill."""
        rng = np.random.default_rng((self.seed, at.epoch, at.step))
        rows = np.sort(rng.permutation(len(self.users))[: self.settings.typical])
        starts, ends = self.starts[rows], self.ends[rows]
        met = slices(self.items, starts, ends - starts, self.users[rows], None)
        targets = torch.from_numpy(self.items[ends]).long()
        chosen = torch.from_numpy(rows)
        histories = Histories(met.items, met.lengths, met.users, targets=targets).to(device)
        return Met(histories, self.written[chosen].to(device), self.present[chosen].to(device))

    def losses(self, met: Met, vectors: Tensor, items: Tensor) -> Losses:
        """The auxiliary tasks.

        Args:
            met: the users; the target of each is a row of `items`.
            vectors: (n, K, dim) of the users.
            items: (items + 1, dim) vectors of what the next item is predicted among, the padding first.
        """
        settings, terms = self.settings, dict[str, Term]()
        mapped = None if self.to_items is None else self.to_items(met.written)
        if settings.matching is not None:
            assert mapped is not None
            loss = alignment_loss(vectors, mapped, met.present, settings.matching.temperature)
            terms["alignment"] = Term(settings.matching.weight * loss)
        if settings.prediction is not None:
            loss = self._forth(met, vectors, mapped, items) if self.to_words is None else self._back(met, vectors)
            terms["semantic"] = Term(settings.prediction.weight * loss)
        return terms

    def _forth(self, met: Met, vectors: Tensor, mapped: Tensor | None, items: Tensor) -> Tensor:
        """Cross-entropy of the next item by what is written, which the user's mean vector attends to."""
        assert mapped is not None
        assert met.histories.targets is not None
        query = vectors.mean(1)
        logits = (mapped @ query[..., None]).squeeze(2) / query.shape[1] ** 0.5
        shares = logits.masked_fill(~met.present, torch.finfo(logits.dtype).min).softmax(1)
        pooled = (shares[:, None] @ mapped).squeeze(1)
        return F.cross_entropy(pooled @ items[1:].T, met.histories.targets - 1)

    def _back(self, met: Met, vectors: Tensor) -> Tensor:
        """One minus the cosine of the mean of what is written and what the user's mean vector makes of it."""
        assert self.to_words is not None
        counts = met.present.sum(1, keepdim=True)
        wanted = (met.written * met.present[..., None]).sum(1) / counts
        return (1 - F.cosine_similarity(self.to_words(vectors.mean(1)), wanted)).mean()


def match(vectors: Tensor, mapped: Tensor, present: Tensor) -> Matches:
    """One to one, so that the sum of cosines is largest (the Hungarian method); what is over stays alone.

    Args:
        vectors: (n, K, dim) of users.
        mapped: (n, most, dim) written interests.
        present: (n, most) bool.
    """
    cosines = (F.normalize(vectors.detach(), dim=2) @ F.normalize(mapped.detach(), dim=2).transpose(1, 2)).float()
    cosines = cosines.nan_to_num()  # of weights that are no numbers: the loss of any pairs tells of them
    known = present.cpu().numpy()
    rows: list[tuple[int, int, int]] = []
    for user, own in enumerate(cosines.cpu().numpy()):
        columns = np.flatnonzero(known[user])
        pairs = zip(*linear_sum_assignment(own[:, columns], maximize=True), strict=True)
        rows += [(user, int(number), int(columns[column])) for number, column in pairs]
    return Matches(*torch.tensor(rows, dtype=torch.long, device=vectors.device).reshape(-1, 3).T)


def alignment_loss(vectors: Tensor, mapped: Tensor, present: Tensor, temperature: float) -> Tensor:
    """The contrast of each matched pair with what is written of all other users; the mean of users.

    Other interests of the same user are no negatives: they may overlap.

    Args:
        vectors: (n, K, dim) of users.
        mapped: (n, most, dim) written interests.
        present: (n, most) bool.
        temperature: of the cosines.
    """
    pairs = match(vectors, mapped, present)
    anchors = F.normalize(vectors[pairs.users, pairs.vectors], dim=1)
    every = F.normalize(mapped[present], dim=1)
    owners = present.nonzero()[:, 0]
    positives = (anchors * F.normalize(mapped[pairs.users, pairs.written], dim=1)).sum(1) / temperature
    logits = (anchors @ every.T / temperature).masked_fill(pairs.users[:, None] == owners, -torch.inf)
    losses = torch.logsumexp(torch.cat([positives[:, None], logits], 1), 1) - positives
    counts = torch.bincount(pairs.users, minlength=len(vectors))
    return (losses / counts[pairs.users]).sum() / len(vectors)
