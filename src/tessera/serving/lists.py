"""Histories in, lists of items out: what `recommend` for one history and the job for all users share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tessera.data.padding import padded
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import Scorer, score, users_at_once
from tessera.evaluation.ranking import check_scores, top
from tessera.recommenders.systems.base import VectorScorer
from tessera.serving.catalogue import Catalogue, Mask

History = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Lists:
    """Lists of users, best first."""

    items: npt.NDArray[np.int64]
    """(users, k) item ids, 0 where fewer than k were left."""
    scores: npt.NDArray[np.float32]
    """(users, k) scores of the system; training interactions where `popular`."""
    popular: Mask
    """(users,) whose history is empty: the most popular items stand there, not the system's."""


def best(scores: Tensor, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(batch, k) item ids and scores of the highest of (batch, items), best first; equals by id, -inf never.

    Which of several equals a search takes is not said, so those at the end of the list are looked up.
    """
    width = min(k, scores.shape[1])
    # one more than is wanted tells who has equals outside of the list, with no second look at all scores
    highest, columns = top(scores, min(width + 1, scores.shape[1]))
    inside, last = highest[:, :width], highest[:, width - 1 : width]
    ids = columns[:, :width] + 1
    for row in (highest[:, width:] == last).any(1).nonzero()[:, 0].tolist():
        count = int((inside[row] == last[row]).sum())
        ids[row, -count:] = (scores[row] == last[row]).nonzero()[:count, 0] + 1
    # as exact as the judge ranked them: a system from outside may give what float32 does not tell apart
    items, values = ids.cpu().numpy(), inside.cpu().numpy()
    order = np.lexsort((items, -values), axis=1)
    items, values = np.take_along_axis(items, order, 1), np.take_along_axis(values, order, 1)
    items = np.where(np.isneginf(values), 0, items)
    rest = ((0, 0), (0, k - width))
    return np.pad(items, rest), np.pad(values.astype(np.float32), rest, constant_values=-np.inf)


def rank(
    scorer: Scorer,
    catalogue: Catalogue,
    histories: Sequence[History],
    k: int,
    seen: bool = False,
    allowed: Mask | None = None,
    users: npt.NDArray[np.int32] | None = None,
    times: Sequence[npt.NDArray[np.float64]] | None = None,
) -> Lists:
    """The k best items after every history (dense ids, oldest first).

    Args:
        seen: whether items of the own history may be recommended.
        allowed: (items + 1,) what may be recommended; None allows the catalogue.
        users: dense ids of the users, for systems that read who asks; 0, and None, is nobody known.
        times: seconds of every history's items, for systems that read them; None where no time is known.
    Raises:
        ScoreError: a score is NaN.
        ScoreFormError: see `judge.score`.
    """
    count = len(histories)
    lists = Lists(np.zeros((count, k), np.int64), np.zeros((count, k), np.float32), np.zeros(count, bool))
    lengths = np.array([len(history) for history in histories], np.int64)
    barred = None if allowed is None else torch.from_numpy(~allowed[1:])
    lists.popular[:] = lengths == 0
    if lists.popular.any():
        counts = torch.from_numpy(catalogue.popularity[1:]).float()[None]
        ids, values = best(counts if barred is None else counts.masked_fill(barred, -torch.inf), k)
        lists.items[lists.popular], lists.scores[lists.popular] = ids, values
    who = np.zeros(count, np.int32) if users is None else users
    for part in _parts(np.flatnonzero(~lists.popular), users_at_once(len(catalogue))):
        offsets = np.concatenate([[0], np.cumsum(lengths[part])])
        flat = np.concatenate([histories[number] for number in part])
        with torch.no_grad():
            clock = np.concatenate([times[number] for number in part]) if times is not None else None
            scores = score(scorer, flat, offsets[:-1], lengths[part], who[part], clock, len(catalogue))
        check_scores(scores, torch.from_numpy(who[part]))
        if (unscored := getattr(scorer, "unscored", -torch.inf)) > -torch.inf:
            scores.masked_fill_(scores <= unscored, -torch.inf)
        if not seen:
            rows = torch.from_numpy(np.repeat(np.arange(len(part)), lengths[part]))
            scores[rows, torch.from_numpy(flat).long() - 1] = -torch.inf
        if barred is not None:
            scores.masked_fill_(barred.to(scores.device), -torch.inf)
        lists.items[part], lists.scores[part] = best(scores, k)
    return lists


def states_after(scorer: VectorScorer, histories: Sequence[History], size: int) -> npt.NDArray[np.float32]:
    """(histories, dim), or (histories, K, dim), vectors of users after histories that are not empty; `size` at once."""
    blocks, most = [], scorer.max_history
    for start in range(0, len(histories), size):
        part = [history[-most:] if most else history for history in histories[start : start + size]]
        lengths = np.array([len(history) for history in part], np.int64)
        rows = padded(np.concatenate(part), np.cumsum(lengths) - lengths, lengths)
        blocks.append(scorer.states(Histories.of(rows, lengths)).float().cpu().numpy())
    states: npt.NDArray[np.float32] = np.concatenate(blocks)
    return states


def _parts(numbers: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
