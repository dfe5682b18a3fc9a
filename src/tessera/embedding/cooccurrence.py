"""What a rollout is ranked among: items that co-occur with an item, and items that never do (ReaEmb, section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tessera.artifacts.logs import log
from tessera.data.cooccurrence import cooccurrence
from tessera.data.dataset import Dataset
from tessera.data.directions import unit_rows
from tessera.settings.recipes.crrl import CRRLTable

MAX_HISTORY = 1000
"""Pairs are counted among so many items at the end of a history: a history of n items takes n squared entries."""

_BLOCK = 1024  # most anchors that are compared with all items at once
_CELLS = 2**24  # most similarities that are held at once: fewer anchors in large catalogues

_ROUNDS = 20  # of drawing negatives again, before the rest is drawn from an explicit list


Histories = tuple[np.ndarray, np.ndarray]
"""(users + 1,) offsets, and the items of all histories."""


@dataclass(frozen=True)
class Candidates:
    """Items that learn, and what each is ranked among."""

    anchors: np.ndarray
    """(n,) items that learn, ascending."""
    positives: np.ndarray
    """(n, most) items that co-occur with each anchor, most often first, ties by item id; 0 where there are fewer."""
    weights: np.ndarray
    """(n, most) share of each positive in their co-occurrences; 0 where there are fewer."""
    eligible: np.ndarray
    """Items that may be candidates, ascending."""
    counts: sparse.csr_matrix[np.int64]
    """(items + 1, items + 1) co-occurrences."""
    size: int
    """Candidates an anchor."""

    def draw(self, rows: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Positives, then negatives: uniform without repetition among eligible items that never co-occur.

        An anchor with fewer positives has more negatives. Where too few items never co-occur, others that are no
        positives fill up; an anchor that co-occurs with none is rewarded for its first, random one.

        Args:
            rows: places in `anchors`.
            generator: draws the negatives of all rows.
        Returns:
            items (rows, size) and weights (rows, size), 0 at negatives.
        """
        anchors, positives = self.anchors[rows], self.positives[rows]
        candidates, weights, open_ = self._begun(rows)
        for _ in range(_ROUNDS):
            if not open_.any():
                break
            candidates[open_] = self.eligible[generator.integers(len(self.eligible), size=int(open_.sum()))]
            open_ = self._refused(anchors, candidates, open_)
        for row in np.flatnonzero(open_.any(1)):
            self._fill(anchors[row], candidates[row], open_[row], positives[row], generator)
        return candidates, weights

    def nearest(self, vectors: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positives, then hard negatives: the items most like the anchor among those that never co-occur with it.

        An item of which the same is told as of the anchor counts as one that co-occurs: no vector tells the two apart.
        Where too few are left, others that are no positives fill up, again the most alike first.

        Args:
            vectors: (eligible, width) of the eligible items, in that order; compared by cosine, ties by item id.
            texts: (eligible,) the same number for items of which the same is told.
        Returns:
            items (anchors, size) and weights, as from `draw`.
        """
        rows = np.arange(len(self.anchors))
        candidates, weights, open_ = self._begun(rows)
        unit = unit_rows(vectors)
        column = np.full(self.counts.shape[1], -1)
        column[self.eligible] = np.arange(len(self.eligible))
        anchors = min(_BLOCK, max(1, _CELLS // len(unit)))
        for start in range(0, len(rows), anchors):
            block = slice(start, start + anchors)
            similarity = unit[column[self.anchors[block]]] @ unit.T
            similarity[texts[column[self.anchors[block]]][:, None] == texts[None]] -= 4.0
            met = self.counts[self.anchors[block]].tocoo()
            known = column[met.col] >= 0
            # below every cosine
            similarity[met.row[known], column[met.col[known]]] -= 4.0
            # the padding of fewer positives stands for the anchor itself, which is none either
            right = np.where(self.positives[block] > 0, self.positives[block], self.anchors[block][:, None])
            for taken in (right, self.anchors[block][:, None]):
                np.put_along_axis(similarity, column[taken], -np.inf, 1)
            order = self.eligible[_largest(similarity, self.size)]
            # the first of each order go to the row's open cells, which are its last
            count = open_[block].sum(1, keepdims=True)
            wanted = np.arange(self.size)[None] < count
            candidates[block][open_[block]] = order[wanted]
        return candidates, weights

    def _begun(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Candidates (rows, size) with the positives of anchors alone, weights, and which cells are open."""
        positives = self.positives[rows]
        candidates = np.zeros((len(rows), self.size), np.int64)
        candidates[:, : positives.shape[1]] = positives
        weights = np.zeros((len(rows), self.size), np.float64)
        weights[:, : positives.shape[1]] = self.weights[rows]
        weights[(weights == 0).all(1), 0] = 1.0
        return candidates, weights, np.arange(self.size)[None] >= (positives > 0).sum(1)[:, None]

    def _refused(self, anchors: np.ndarray, candidates: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Drawn cells (rows, size) that hold the anchor, what co-occurs with it, or what the row has already."""
        # equal items side by side: kept cells first, then drawn ones from the left
        key = (candidates * 2 + drawn) * self.size + np.arange(self.size)
        order = key.argsort(1)
        ordered = np.take_along_axis(candidates, order, 1)
        refused = np.zeros(candidates.shape, bool)
        np.put_along_axis(refused, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
        refused &= drawn
        rows, columns = np.nonzero(drawn)
        items = candidates[rows, columns]
        met = np.asarray(self.counts[anchors[rows], items]).ravel() > 0
        refused[rows, columns] |= met | (items == anchors[rows])
        return refused

    def _fill(
        self,
        anchor: int,
        candidates: np.ndarray,
        open_: np.ndarray,
        positives: np.ndarray,
        generator: np.random.Generator,
    ) -> None:
        """Draw the open cells of one row from explicit lists: items that never co-occur, then any other."""
        taken = np.concatenate([candidates[~open_], positives, [anchor]])
        met = self.counts[anchor].indices
        never = np.setdiff1d(self.eligible, np.concatenate([taken, met]))
        others = np.setdiff1d(np.intersect1d(self.eligible, met), taken)
        drawn = np.concatenate([generator.permutation(never), generator.permutation(others)])
        candidates[open_] = drawn[: open_.sum()]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """(rows, count) columns of the largest values of each row, largest first, ties by column; without a full sort."""
    least = np.partition(values, -count, axis=1)[:, -count, None]
    rows, columns = np.nonzero(values >= least)  # by row and column; more than `count` where the least has ties
    order = np.lexsort((columns, -values[rows, columns], rows))
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return columns[order][place < count].reshape(len(values), count)


def build_candidates(
    dataset: Dataset, described: np.ndarray, settings: CRRLTable, histories: Histories | None = None
) -> Candidates:
    """Count co-occurrences and choose who learns and what is right for it.

    Args:
        dataset: a prepared dataset.
        described: items of which there is a text; no other can be embedded.
        settings: of the table.
        histories: in which pairs are counted; None counts in the training histories.
    Raises:
        ValueError: fewer items than candidates, or no item that co-occurs with another.
    """
    offsets, items = dataset.train_histories() if histories is None else histories
    longest = int(np.diff(offsets).max(initial=0))
    if longest > MAX_HISTORY:
        log.info("co-occurrence: histories are cut to their last %d items (the longest has %d)", MAX_HISTORY, longest)
    counts = cooccurrence(offsets, items, dataset.n_items, MAX_HISTORY)
    eligible = np.intersect1d(np.unique(items), described).astype(np.int64)
    if len(eligible) <= settings.candidates:
        raise ValueError(
            f"candidates: {settings.candidates} are asked for each item, but only {len(eligible)} items "
            "have both a text and an interaction to learn from"
        )
    anchors, positives, weights = _positives(counts, eligible, settings.positives)
    lonely = weights[:, 0] == 0
    if lonely.any():
        log.info("%d of %d items co-occur with none: %s", lonely.sum(), len(anchors), _LONELY[settings.lonely_items])
    if settings.lonely_items == "skip":
        anchors, positives, weights = anchors[~lonely], positives[~lonely], weights[~lonely]
    if not len(anchors):
        raise ValueError("no two items with a text stand in the same training history: there is nothing to reward")
    return Candidates(anchors, positives, weights, eligible, counts, settings.candidates)


_LONELY = {"skip": "they are left out", "keep": "each is rewarded for a random item, as published"}


def _positives(
    counts: sparse.csr_matrix[np.int64], eligible: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `most` items that co-occur most with each eligible item, and their shares of the count."""
    among = counts[eligible][:, eligible].tocoo()
    # by anchor, then falling count, then item id
    order = np.lexsort((among.col, -among.data, among.row))
    rows, columns, values = among.row[order], among.col[order], among.data[order]
    starts = np.searchsorted(rows, np.arange(len(eligible)))
    place = np.arange(len(rows)) - starts[rows]
    kept = place < most
    positives = np.zeros((len(eligible), most), np.int64)
    weights = np.zeros((len(eligible), most), np.float64)
    positives[rows[kept], place[kept]] = eligible[columns[kept]]
    weights[rows[kept], place[kept]] = values[kept]
    weights /= np.maximum(weights.sum(1, keepdims=True), 1.0)
    return eligible, positives, weights
