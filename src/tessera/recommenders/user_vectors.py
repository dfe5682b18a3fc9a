"""What several vectors of a user stand for: the items that each of them alone would put first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tessera.data.dataset import Cases
from tessera.evaluation.histories import slices
from tessera.evaluation.judge import Ranked, Scorer
from tessera.evaluation.spread import spread
from tessera.recommenders.systems.base import VectorScorer

USERS = 8
"""Test users who are looked at, spread evenly over the length of histories: the same under every system and seed."""
ITEMS = 6
"""Items that are told of a vector."""


def told_of_vectors(scorer: Scorer, cases: Cases, ranked: Ranked) -> list[dict[str, Any]]:
    """Of some test users, each vector with its nearest items; empty of a system with one vector a user.

    Nearest are items of the largest score by that vector alone, those of the history among them. Of each user:
    `user`, `of_target` (which vector is best for the target, the first of equals) and `vectors`: `items`, nearest
    first, and `recommended`, to how many of the user's recommendations it gave the score.

    Args:
        scorer: the recommender.
        cases: users, targets and histories.
        ranked: what the judge made of them.
    """
    if not isinstance(scorer, VectorScorer) or not len(cases):
        return []
    order = np.lexsort((cases.users, cases.lengths))
    chosen = order[spread(len(cases), USERS)]
    starts, lengths = cases.offsets[:-1][chosen], cases.lengths[chosen]
    if scorer.max_history is not None:
        read = np.minimum(lengths, scorer.max_history)
        starts, lengths = starts + lengths - read, read
    states = scorer.states(slices(cases.items, starts, lengths, cases.users[chosen], cases.times))
    if states.dim() == 2:
        return []
    users = []
    for case, vectors in zip(chosen.tolist(), states, strict=True):
        scores = _scores(scorer, vectors)
        best = scores.argmax(0)
        lists = np.argsort(-scores, axis=1, kind="stable")[:, :ITEMS] + 1
        listed = ranked.recommended[case]
        given = np.bincount(best[listed[listed > 0] - 1], minlength=len(scores))
        shown = [{"items": items, "recommended": n} for items, n in zip(lists.tolist(), given.tolist(), strict=True)]
        user = {"user": int(cases.users[case]), "of_target": int(best[cases.targets[case] - 1]), "vectors": shown}
        users.append(user)
    return users


@torch.no_grad()
def _scores(scorer: VectorScorer, vectors: torch.Tensor) -> np.ndarray:
    """(K, items) of vectors (K, dim)."""
    scores = vectors.float() @ scorer.item_vectors.float().T
    bias = scorer.prepared.bias
    made: np.ndarray = (scores if bias is None else scores + bias[1:]).cpu().numpy()
    return made
