"""Supervised contrastive fine-tuning on pairs: items that stand together in training histories are brought together.

The plain form of what collaborative rewards are for (ReaEmb, section 2.4): every pair is told from the other items of
the step, and the gradient reaches every adapter. Item text encoders of retrieval systems are trained so (dense passage
retrieval, Karpukhin et al., EMNLP 2020: in-batch negatives). An item is told and read as in `scft`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from tessera.artifacts.logs import log
from tessera.data.dataset import load_dataset
from tessera.embedding.contrastive import ContrastiveTraining
from tessera.embedding.scft import SCFTRecipe
from tessera.embedding.step_batches import PairBatches, Pairs, near
from tessera.language.prompts import Attributes, attribute_text
from tessera.objectives.contrastive import retrieval_accuracy
from tessera.objectives.in_batch import in_batch
from tessera.training.losses import Losses, Term, reported

if TYPE_CHECKING:
    from tessera.embedding.recipe import Items
    from tessera.language.tokens import Frame
    from tessera.training.machine import Machine


class PairTraining(ContrastiveTraining):
    """One step: pairs are read, gathered over processes, and each side is told from the others'."""

    def __init__(self, counts: sparse.csr_matrix[np.int64], *given: Any) -> None:
        """
        Args:
            counts: (items + 1, items + 1) how often two stand near each other in training histories.
            given: as `ContrastiveTraining` takes it.
        """
        super().__init__(*given)
        self.counts = counts
        numbers: dict[str, int] = {}
        # (items + 1,) items with the same text have the same number
        self.content = np.zeros(counts.shape[0], np.int64)
        for item, attributes in self.attributes.items():
            self.content[item] = numbers.setdefault(attribute_text(attributes), len(numbers))

    def losses(self, pairs: Pairs, step: int) -> Losses:
        """The loss over the pairs of all processes, and what the curve tells beside it."""
        self.hold_temperature()
        mine = self.machine.share(np.stack([pairs.queries, pairs.targets], 1))
        # an item that stands in several pairs is read once
        distinct, where = np.unique(mine, return_inverse=True)
        read = self.encode(self.tokens(self.attributes[item] for item in distinct.tolist()))
        sides = read[torch.from_numpy(where.reshape(mine.shape)).to(read.device)]
        queries, targets = self.machine.gather(sides).unbind(1)
        same = torch.from_numpy(self.no_negatives(pairs)).to(queries.device)
        forth = in_batch(queries, targets, self.temperature, same)
        back = in_batch(targets, queries, self.temperature, same.T)
        return {
            "loss": Term((forth + back) / 2), "temperature": reported(self.temperature),
            "accuracy": reported(retrieval_accuracy(queries, targets, True, same)),
            "negatives": reported((~same).sum(1).float().mean()),
        }  # fmt: skip

    def no_negatives(self, pairs: Pairs) -> np.ndarray:
        """(batch, batch) true where target j is no negative of query i, and query i none of target j.

        So it is where the two stand near each other or have the same text, and where both queries or both targets have.
        """
        queries, targets = pairs.queries, pairs.targets
        query, target = self.content[queries], self.content[targets]
        alike = (query[:, None] == target) | (target[:, None] == target) | (query[:, None] == query)
        return np.asarray(alike | (self.counts[queries][:, targets].toarray() > 0))


class NeighbourBatches:
    """Pairs of each step: every item in turn, beside one that it stands near, as often as it does."""

    def __init__(self, items: Items, counts: sparse.csr_matrix[np.int64], settings: Any, world: int) -> None:
        """
        Args:
            items: ids to train on.
            counts: (items + 1, items + 1) how often two stand near each other in training histories.
            settings: a `PairsTable`.
            world: processes.
        Raises:
            ValueError: too few items for a step, or no two stand near each other.
        """
        if not counts[items][:, items].nnz:
            raise ValueError(
                f"no two items with a text stand at most {settings.window} places apart in a training history: "
                "there is no pair to learn from"
            )
        self.items, training = items, settings.training
        weights = {"views": 0.0, "together": 1.0}
        self.pairs = PairBatches(items, weights, counts, training.batch, training.steps, world, training.seed)

    @property
    def batch(self) -> int:
        """Pairs of a step, over all processes."""
        return self.pairs.batches["together"].batch

    def __call__(self, step: int) -> Pairs:
        """The pairs of a step."""
        return self.pairs(step)


class PairsRecipe(SCFTRecipe):
    """The recipe."""

    settings: Any
    """A `PairsTable`."""

    @cached_property
    def counts(self) -> sparse.csr_matrix[np.int64]:
        """(items + 1, items + 1) how often two items stand near each other in training histories."""
        dataset = load_dataset(self.given.data)
        offsets, items = dataset.train_histories()
        return near(offsets, items, dataset.n_items + 1, self.settings.window)

    def step(
        self, encoder: nn.Module, attributes: Mapping[int, Attributes], frame: Frame, machine: Machine
    ) -> ContrastiveTraining:
        """See `ContrastiveRecipe.step`."""
        settings, model = self.settings, self.given.model
        given = (encoder, settings, settings.temperature, attributes, frame, self.room, model, machine)
        return PairTraining(self.counts, *given)

    def step_batches(self, items: Items, world: int) -> NeighbourBatches:
        """See `ContrastiveRecipe.step_batches`."""
        return NeighbourBatches(items, self.counts, self.settings, world)

    def tell_end(self, history: list[dict[str, Any]]) -> None:
        """Whether there was anything to tell a pair from."""
        if history and history[-1]["negatives"] < 1:
            log.warning(
                "pairs: %.1f negatives a pair: nearly all items of a step stand near each other or have the same text, "
                "so that nothing is told apart; take a smaller window or a larger batch (window %d, batch %d)",
                history[-1]["negatives"], self.settings.window, self.settings.training.batch,
            )  # fmt: skip
