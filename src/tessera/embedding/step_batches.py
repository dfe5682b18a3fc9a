"""Explicit batches of steps: items of one bucket of like cost, and pairs of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tessera.embedding.contrastive import ItemBatches
from tessera.language.prompts import Attributes

Items = npt.NDArray[np.int64]

SHORTEST, GROWTH = 32, 1.3
"""Buckets end at 32, 32 x 1.3, 32 x 1.3 x 1.3, ... of cost."""


class CostBuckets:
    """Items of each step: all of one bucket of like cost, as many as the budget takes."""

    def __init__(self, items: Items, costs: npt.NDArray[np.int64], budget: int, world: int, seed: int) -> None:
        """
        Args:
            items: ids to train on.
            costs: (n,) of each.
            budget: of a step, over all processes.
            world: processes; they hold equal shares of every step.
            seed: of the order.
        Raises:
            ValueError: there are fewer items than processes.
        """
        if len(items) < world:
            raise ValueError(f"{len(items)} items can be trained on; {world} processes need one each")
        self.world, self.seed = world, seed
        ends = SHORTEST * GROWTH ** np.arange(64)
        number = np.searchsorted(ends, costs)
        self.buckets: list[Items] = []
        """Ids of the items of each bucket."""
        self.sizes: list[int] = []
        """Items of a step from each."""
        waiting = np.empty(0, np.int64)
        for bucket in np.unique(number):
            waiting = np.concatenate([waiting, items[number == bucket]])
            if len(waiting) < world:
                continue  # too few for a step: they go with the next
            self._add(waiting, budget, float(ends[bucket]))
            waiting = np.empty(0, np.int64)
        if len(waiting):
            last = self.buckets.pop() if self.buckets else np.empty(0, np.int64)
            self.sizes = self.sizes[: len(self.buckets)]
            self._add(np.concatenate([last, waiting]), budget, float(ends[number.max()]))
        self._epochs: dict[int, list[Items]] = {}
        self.steps = len(self._epoch(0))

    def _add(self, items: Items, budget: int, longest: float) -> None:
        self.buckets.append(items)
        self.sizes.append(max(1, int(budget / longest) // self.world) * self.world)

    def _epoch(self, epoch: int) -> list[Items]:
        if epoch not in self._epochs:
            generator = np.random.default_rng((self.seed, 1, epoch))
            batches = []
            for bucket, size in zip(self.buckets, self.sizes, strict=True):
                order = generator.permutation(bucket)
                # what does not divide is left to other epochs
                order = order[: len(order) // self.world * self.world]
                batches += [order[start : start + size] for start in range(0, len(order), size)]
            self._epochs = {epoch: [batches[place] for place in generator.permutation(len(batches))]}
        return self._epochs[epoch]

    def __call__(self, step: int) -> Items:
        """(n,) ids of the items of a step."""
        epoch, place = divmod(step, self.steps)
        return self._epoch(epoch)[place]


class Pairs(NamedTuple):
    """The pairs of a step."""

    kind: str
    queries: Items
    """(batch,) ids; none twice."""
    targets: Items
    """(batch,) ids; some may stand twice."""
    negatives: Items
    """(batch, k) ids of each query's own; 0 where there is none."""


def near(offsets: np.ndarray, items: np.ndarray, size: int, window: int) -> sparse.csr_matrix[np.int64]:
    """(size, size) how often two items stand at most `window` places apart in a history; nothing on the diagonal.

    Args:
        offsets: (users + 1,) where each history begins.
        items: ids, history after history.
        size: items of the catalogue, padding counted.
        window: places, at least 1.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = sparse.csr_matrix((size, size), dtype=np.int64)
    for distance in range(1, window + 1):  # one after the other: all pairs at once are many times the log
        first, second = items[:-distance], items[distance:]
        chosen = (owner[:-distance] == owner[distance:]) & (first != second)
        ones = np.ones(int(chosen.sum()), np.int64)
        counts = counts + sparse.csr_matrix((ones, (first[chosen], second[chosen])), shape=(size, size))
    counts = (counts + counts.T).tocsr()
    counts.sort_indices()
    return counts


class PairBatches:
    """Pairs of each step: all of one kind, drawn by weights."""

    def __init__(
        self, items: Items, weights: Mapping[str, float], counts: sparse.csr_matrix[np.int64], batch: int, steps: int,
        world: int, seed: int, attributes: Mapping[int, Attributes] | None = None, negatives: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            items: ids to train on.
            weights: of the kinds `views` and `together`.
            counts: (items + 1, items + 1) how often two stand near each other in training histories.
            batch: pairs of a step, over all processes.
            steps: of the training.
            world: processes.
            seed: of everything drawn.
            attributes: by item, for the negatives of a query's own.
            negatives: of a query of `together`.
        Raises:
            ValueError: too few items for a step, or no two stand near each other.
        """
        self.seed, self.count = seed, negatives
        self.kinds = [kind for kind in ("views", "together") if weights[kind] > 0]
        chances = np.array([weights[kind] for kind in self.kinds])
        drawn = np.random.default_rng((seed, 2)).choice(len(self.kinds), size=steps, p=chances / chances.sum())
        self.order = drawn.astype(np.int64)
        # a kind's own steps, so that each goes through its items
        self.own = np.zeros(steps, np.int64)
        for number in range(len(self.kinds)):
            self.own[drawn == number] = np.arange(int((drawn == number).sum()))
        self.items = items
        self.met = counts[items][:, items].tocsr()
        self.summed = np.concatenate([[0], np.cumsum(self.met.data)])
        anchors = np.flatnonzero(np.diff(self.met.indptr))
        if "together" in self.kinds and not len(anchors):
            raise ValueError(
                "pairs.together: no two items that can be read stand near each other in a training history; "
                "give pairs: {together: 0.0, views: 1.0}"
            )
        self.batches = {
            kind: ItemBatches(items if kind == "views" else items[anchors], batch, world, seed) for kind in self.kinds
        }
        self.sharing = _sharing(items, attributes or {}) if negatives else {}
        self.attributes = attributes or {}

    def __call__(self, step: int) -> Pairs:
        """The pairs of a step."""
        kind = self.kinds[self.order[step]]
        queries = self.batches[kind](int(self.own[step]))
        if kind == "views":
            return Pairs(kind, queries, queries, np.zeros((len(queries), 0), np.int64))
        generator = np.random.default_rng((self.seed, 3, step))
        return Pairs(kind, queries, self._partners(queries, generator), self._negatives(queries, generator))

    def _partners(self, queries: Items, generator: np.random.Generator) -> Items:
        """(n,) for each query an item that stands near it, as often as it does."""
        rows = np.searchsorted(self.items, queries)
        first, last = self.summed[self.met.indptr[rows]], self.summed[self.met.indptr[rows + 1]]
        place = np.searchsorted(self.summed, generator.integers(first, last), side="right") - 1
        partners: Items = self.items[self.met.indices[place]]
        return partners

    def _negatives(self, queries: Items, generator: np.random.Generator) -> Items:
        """(n, k) items that share an attribute with the query and never stand near it; 0 where there is none."""
        negatives = np.zeros((len(queries), self.count), np.int64)
        for row, query in enumerate(queries.tolist() if self.count else []):
            at = np.searchsorted(self.items, query)
            near_it = self.items[self.met.indices[self.met.indptr[at] : self.met.indptr[at + 1]]]
            like_it = [self.sharing[pair] for pair in self.attributes.get(query, []) if pair in self.sharing]
            open_ = np.setdiff1d(np.concatenate(like_it), [query, *near_it]) if like_it else np.empty(0, np.int64)
            drawn = generator.permutation(open_)[: self.count]
            negatives[row, : len(drawn)] = drawn
        return negatives


def _sharing(items: Items, attributes: Mapping[int, Attributes]) -> dict[tuple[str, str], Items]:
    """The items that have an attribute's value, where several do but not more than half of all."""
    holders: dict[tuple[str, str], list[int]] = {}
    for item in items.tolist():
        for pair in attributes.get(item, []):
            holders.setdefault(pair, []).append(item)
    return {pair: np.array(some) for pair, some in holders.items() if 1 < len(some) <= len(items) / 2}
