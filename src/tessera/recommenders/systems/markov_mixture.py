"""A trained system and a Markov chain side by side: log p(base) + weight x log p(chain).

Any system under a backbone is trained as it is by itself. After training, transitions are counted and two numbers are
chosen on validation: the weight of the chain, and how much items borrow from similar ones. The chain takes no part in
training: its counts contain the target of every training position, so that a network beside it would leave to it what
it could learn, and find at the test that it knows nothing of the targets there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.evaluation.histories import Histories
from tessera.recommenders.inputs import RunInputs, Table
from tessera.recommenders.missing import Present
from tessera.recommenders.systems.base import Recommender, TrainingHistories, Validate, VectorRecommender, recommender
from tessera.recommenders.transition_shares import Neighbours, TransitionShares, rows_to_compare, similar_items
from tessera.settings.runs import Run
from tessera.settings.systems.markov_mixture import MarkovMixtureSystem
from tessera.training.losses import Losses
from tessera.training.phases import Batches, FixedSteps, Phase, Position


class Prepared(NamedTuple):
    """What scoring needs, made once."""

    base: Any
    """What the base made."""
    weight: float
    """Of the chain."""
    strength: float
    """Pseudo-transitions that are borrowed."""


class MarkovMixture(Recommender):
    """A trained system, and the shares of transitions from a history's last item."""

    weight: Tensor
    strength: Tensor
    tried: Tensor

    def __init__(self, settings: MarkovMixtureSystem, base: Recommender, items: int, similar: Table | None) -> None:
        """
        Args:
            settings: of the system.
            base: what is trained.
            items: of the catalogue.
            similar: the table that says what is similar, its rows that are lost left out; None where none does.
        Raises:
            ValueError: items are similar by the base's vectors, and it has none.
        """
        super().__init__()
        self.settings, self.base, self.similar = settings, base, similar
        if settings.similar is not None and similar is None and not isinstance(base, VectorRecommender):
            raise ValueError(f"similar.table: {type(base).__name__} has no item vectors; name a table")
        self.max_history, self.reads_times = base.max_history, base.reads_times
        self.chain = TransitionShares(items, settings.kept, settings.smoothing, settings.similar is not None)
        self.chosen: dict[str, float] = {}
        """What the run that was validated chose, where this one cannot be."""
        # 0 until training is over: it is the base that is trained and validated
        self.register_buffer("weight", torch.zeros(()))
        self.register_buffer("strength", torch.zeros(()))
        # NDCG@10 of each pair that was tried, -1 before; saved, so that a resumed run still knows
        self.register_buffer("tried", torch.full((len(settings.weights), len(settings.borrowed)), -1.0))

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> MarkovMixture:
        """See `Recommender.build`: whatever is random is the base's, which gets the numbers that it gets by itself.

        Raises:
            ValueError: what the base raises, or a table that was not given or says nothing of any item.
        """
        settings = run.method
        assert isinstance(settings, MarkovMixtureSystem)
        items, similar = len(popularity) - 1, None
        if settings.similar is not None and settings.similar.table is not None:
            similar = rows_to_compare(inputs, settings.similar.table, items)
        within = _of_base(run)
        return cls(settings, recommender(within).build(within, inputs, popularity), items, similar)

    # ------------------------------------------------------------ training

    def batches(self, run: Run, histories: TrainingHistories) -> Batches:
        """Those of the base."""
        return self.base.batches(_of_base(run), histories)

    def losses(self, histories: Any, at: Position) -> Losses:
        """Those of the base."""
        return self.base.losses(histories, at)

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """The phases of the base, and after them the counts, and the choice on validation where there is one."""
        first, *rest = self.base.program(_of_base(run), histories, validate)

        def finish() -> None:
            self.chain.count(histories.offsets, histories.items, self._neighbours(histories.items))
            self._choose(validate)

        # no step: what is counted and chosen is so when the phase begins, which happens once
        last = Phase(lambda batch, at: (), FixedSteps(0), {}, name="chain", begin=finish)
        return [first, *rest, last]

    @torch.no_grad()
    def _neighbours(self, items: np.ndarray) -> Neighbours | None:
        """The most similar items, of training histories that hold `items` (rows,)."""
        if self.settings.similar is None:
            return None
        if self.similar is not None:
            return similar_items(*self.similar, self.settings.similar.neighbours)
        assert isinstance(self.base, VectorRecommender)
        self.base.eval()
        for module in self.base.modules():
            if isinstance(module, Present):  # what is lost is so by the losses of training: the choice is part of it
                module.train()
        vectors = self.base.catalogue().scored
        met = torch.from_numpy(np.bincount(items, minlength=len(vectors)) > 0).to(vectors.device)
        known = self.base.known(met)
        self.base.eval()
        return similar_items(vectors, known, self.settings.similar.neighbours)

    @torch.no_grad()
    def _choose(self, validate: Validate) -> None:
        """The pair of the best NDCG@10; of equals the one of the smallest weight, then of the smallest strength."""
        weights, strengths = self.settings.weights, self.settings.borrowed
        if validate is None or self.tried.numel() == 1:
            self.weight.fill_(self.chosen.get("weight", weights[0]))
            self.strength.fill_(self.chosen.get("strength", strengths[0]))
            return
        self.eval()
        for row, weight in enumerate(weights):
            for column, strength in enumerate(strengths):
                if weight == 0 and column:  # the base alone, whatever is borrowed
                    self.tried[row, column] = self.tried[row, 0]
                    continue
                self.weight.fill_(weight)
                self.strength.fill_(strength)
                self.tried[row, column] = validate()["NDCG@10"]
        row, column = divmod(int(self.tried.argmax()), len(strengths))
        self.weight.fill_(weights[row])
        self.strength.fill_(strengths[column])
        borrowed = f", strength {strengths[column]:g}" if self.settings.similar is not None else ""
        best = zip(weights, self.tried.amax(1).tolist(), strict=True)
        shown = ", ".join(f"{weight:g}: {value:.4f}" for weight, value in best)
        log.info("weight %g%s is the best on validation (NDCG@10 of each weight: %s)", weights[row], borrowed, shown)

    def selected(self) -> dict[str, float]:
        """See `Recommender.selected`: those of the base, `weight`, and `strength` where items borrow."""
        own = {"weight": float(self.weight), "strength": float(self.strength)} if self.tried.numel() > 1 else {}
        if self.settings.similar is None:
            own.pop("strength", None)
        return self.base.selected() | {name: round(value, 6) for name, value in own.items()}

    def select(self, values: Mapping[str, float]) -> None:
        """See `Recommender.select`; weight and strength count once training is over."""
        self.chosen = dict(values)
        if self.base.selected():
            self.base.select(values)

    # ------------------------------------------------------------ items

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `Recommender.add_items`; nothing follows a new item yet."""
        self.base.add_items(tables)
        self.chain.add_items(len(next(iter(tables.values()))[1]))

    def item_rows(self) -> Collection[str]:
        """Those of the base, and the counts."""
        own = [f"chain.{name}" for name in TransitionShares.ROWS]
        return [*(f"base.{name}" for name in self.base.item_rows()), *own]

    def made_anew(self) -> Collection[str]:
        """What the base makes anew, the counts of its own histories, and what is chosen."""
        counts = [f"chain.{name}" for name in self.chain.state_dict()]
        return [*(f"base.{name}" for name in self.base.made_anew()), *counts, "weight", "strength", "tried"]

    # ------------------------------------------------------------ scores

    def prepare(self) -> Prepared:
        """See `Recommender.prepare`."""
        return Prepared(self.base.prepare(), float(self.weight), float(self.strength))

    def score(self, histories: Histories, prepared: Prepared) -> Tensor:
        """(batch, items) scores of the base; with a weight, log-probabilities of both, up to a constant a user."""
        scores: Tensor = self.base.score(histories, prepared.base)
        if not prepared.weight:
            return scores
        rows = torch.arange(len(scores), device=scores.device)
        last = histories.items[rows, histories.lengths - 1]
        shares: Tensor = self.chain(last, prepared.strength, scores.shape[1] + 1)[:, 1:]
        return scores.float().log_softmax(1) + prepared.weight * shares.log()


def _of_base(run: Run) -> Run:
    """The run of the base by itself."""
    assert isinstance(run.method, MarkovMixtureSystem)
    return run.model_copy(update={"method": run.method.base})
