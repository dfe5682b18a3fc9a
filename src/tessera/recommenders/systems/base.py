"""What recommends: the one contract that training, the judge and lists for users know.

A trained system is a `Recommender`, most of them a `VectorRecommender`: vectors of users and items whose inner product
is the score. A system without training is a `Fixed`, mostly a `Counted`, which is fitted by counting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from tessera.data.dataset import Cases, Dataset
from tessera.evaluation.histories import Histories
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.missing import Present
from tessera.settings.evaluation import Evaluation
from tessera.settings.kinds import implementation, is_outside
from tessera.settings.runs import Run
from tessera.training.losses import Losses
from tessera.training.phases import Batches, Epochs, Optimizer, Phase, Position, Update

UNSCORED = -(2.0**100)
"""Below every sum of log probabilities, finite, and the same number in every type."""
Validate = Callable[[], dict[str, float]] | None
"""Metrics of a system as it stands, which decide when training stops; None where nothing is held out."""


@dataclass(frozen=True)
class TrainingHistories:
    """What is learned from: the training interactions of all users, and no other."""

    offsets: np.ndarray
    """(users + 1,) user u stands in rows offsets[u - 1]:offsets[u]."""
    items: np.ndarray
    """(rows,) in time order within a user."""
    times: np.ndarray | None = None
    """(rows,) float64 seconds, NaN where the source has none."""


def training_histories(dataset: Dataset, times: bool = False) -> TrainingHistories:
    """What may be learned from; `times` also gives when it was."""
    return TrainingHistories(*dataset.train_histories(), dataset.train_times() if times else None)


class Recommender(nn.Module, ABC):
    """A system that is trained."""

    max_history: int | None = None
    """How much of a history's end is read; None reads all."""
    reads_times: bool = False
    """Whether histories carry times."""
    unscored: float = -torch.inf
    """What `score_known` gives items of which the system knows nothing: they are ranked last, and never recommended."""

    @classmethod
    @abstractmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> Self:
        """The untrained system; the caller has seeded torch.

        Args:
            run: the resolved run.
            inputs: the other files that it reads.
            popularity: (items + 1,) training interactions an item: its catalogue.
        """

    @abstractmethod
    def batches(self, run: Run, histories: TrainingHistories) -> Batches:
        """What an epoch goes through: batches of `Histories`, or of what `losses` reads in their place."""

    @abstractmethod
    def losses(self, histories: Any, at: Position) -> Losses:
        """The named losses of a batch, on the system's device. Called under mixed precision where that is asked for."""

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """The phases of training: one of epochs with one optimiser, and early stopping on validation.

        Args:
            run: the resolved run.
            histories: what is learned from.
            validate: metrics of the system as it stands; None trains all epochs and keeps the last weights.
        """
        return [self.epochs(run, self.batches(run, histories), validate)]

    def epochs(self, run: Run, batches: Batches, validate: Validate, name: str = "epochs") -> Phase:
        """A phase of epochs over all losses, as `training` of the run says."""

        def updates(batch: Any, at: Position) -> Iterator[Update]:
            device = next(self.parameters()).device
            yield Update(partial(self.losses, batch.to(device), at))

        training = run.training
        warm = training.warm_start is not None
        until = Epochs(training.epochs, validate, training.patience, training.validate_every, start=warm)
        return Phase(updates, until, {"model": Optimizer(training)}, batches, name, modules=[self])

    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Put items behind those that training knew; asked where the settings say `takes_new`.

        Args:
            tables: by name, vectors (new, width) as the table has them and present (new,).
        Raises:
            ValueError: only training tells it what an item is.
        """
        raise ValueError(f"{type(self).__name__} knows no item but by training on it")

    def selected(self) -> dict[str, float]:
        """What was chosen on validation besides the weights, by name, where a run that cannot be validated needs it."""
        return {}

    def select(self, values: Mapping[str, float]) -> None:
        """Take what the run that was validated had `selected`; a run that cannot be validated trains with it."""

    def item_rows(self) -> Collection[str]:
        """Names, in `state_dict`, of what has a row an item, (items + 1, ...); empty where nothing has.

        A run that goes on from another takes these rows by item, and all else as it is; nothing may have a row a user.

        Raises:
            ValueError: it does not say, or has something that means another thing under other items or users.
        """
        raise ValueError(f"{type(self).__name__} does not say which of its weights have a row an item (`item_rows`)")

    def made_anew(self) -> Collection[str]:
        """Names, in `state_dict`, of what every training counts or chooses again: a run that goes on from another does
        not take it, and it may have another shape there."""
        return ()

    def prepare(self) -> Any:
        """What scoring needs of all items, made once and not once a batch; the weights stand still meanwhile."""
        return None

    @abstractmethod
    def score(self, histories: Histories, prepared: Any) -> Tensor:
        """(batch, items) scores of the whole catalogue, item 1 in the first column; `prepared` is what `prepare` gave.

        The tensor is written over: it must be no part of what is kept.
        """

    def score_known(self, histories: Histories, prepared: Any) -> Tensor:
        """`score`, but with `unscored` for items of which it knows nothing: the order is the same."""
        return self.score(histories, prepared)


class Catalogue(NamedTuple):
    """Vectors of all items; row 0 is the padding."""

    read: Tensor
    """(items + 1, dim) as histories read them."""
    scored: Tensor
    """(items + 1, dim) as they are scored."""
    bias: Tensor | None = None
    """(items + 1,) added to an item's score."""

    def take(self, items: Tensor) -> Catalogue:
        """Some items (n,) as what is scored, in their order; histories read all of them still."""
        rows = torch.cat([items.new_zeros(1), items])
        return Catalogue(self.read, self.scored[rows], None if self.bias is None else self.bias[rows])


class VectorRecommender(Recommender):
    """A system whose score of an item is the inner product of its vector and one of the user's."""

    @abstractmethod
    def catalogue(self) -> Catalogue:
        """The items as they stand."""

    def known(self, met: Tensor) -> Tensor:
        """See `ItemEncoder.known`: items that were met, and those with a row in any table that is read beside IDs."""
        rows = [module() for module in self.modules() if isinstance(module, Present)]
        return torch.stack([met, *(one if one.ndim == 1 else one.flatten(1).any(1) for one in rows)]).any(0)

    @abstractmethod
    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, K, dim) vectors of users after their histories; K is 1 for most."""

    def scores(self, users: Tensor, catalogue: Catalogue) -> Tensor:
        """(batch, items) scores of users (batch, K, dim): the best of a user's vectors counts."""
        items = catalogue.scored[1:].T
        scores = users[:, 0] @ items
        for number in range(1, users.shape[1]):
            scores = torch.maximum(scores, users[:, number] @ items)
        return scores if catalogue.bias is None else scores + catalogue.bias[1:]

    def prepare(self) -> Catalogue:
        """See `Recommender.prepare`."""
        return self.catalogue()

    def score(self, histories: Histories, prepared: Catalogue) -> Tensor:
        """See `Recommender.score`."""
        return self.scores(self.users(histories, prepared), prepared)


class TrainedScorer:
    """A trained system as the judge asks it."""

    gives_away = True

    def __init__(self, model: Recommender, device: torch.device) -> None:
        self.model, self.device = model.to(device).eval(), device
        self.max_history = model.max_history
        self.reads_times = model.reads_times
        self.unscored = model.unscored
        with torch.no_grad():
            self.prepared = model.prepare()

    @torch.no_grad()
    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) scores."""
        return self.model.score_known(histories.to(self.device), self.prepared).float()

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Score items that training did not know, too; see `Recommender.add_items`."""
        self.model.add_items(tables)
        self.prepared = self.model.prepare()


class VectorScorer(TrainedScorer):
    """One with vectors that can be looked at."""

    model: VectorRecommender

    @property
    def item_vectors(self) -> Tensor:
        """(items, dim) what users are compared with."""
        vectors: Tensor = self.prepared.scored[1:]
        return vectors

    @torch.no_grad()
    def states(self, histories: Histories) -> Tensor:
        """(batch, dim) users after their histories; (batch, K, dim) of a system with several vectors a user."""
        users = self.model.users(histories.to(self.device), self.prepared)
        return users[:, 0] if users.shape[1] == 1 else users


def as_scorer(model: Recommender, device: torch.device) -> TrainedScorer:
    """A trained system as it stands, behind the judge's interface."""
    return (VectorScorer if isinstance(model, VectorRecommender) else TrainedScorer)(model, device)


class Fixed(ABC):
    """A system without training, behind the judge's interface."""

    max_history: int | None = None

    @property
    def gives_away(self) -> bool:
        """See `Scorer`: those of the library make what they give."""
        return not is_outside(type(self))

    @classmethod
    @abstractmethod
    def make(cls, run: Run, dataset: Dataset, data: Path, inputs: RunInputs, folder: Path) -> dict[str, Tensor]:
        """What it scores with.

        Args:
            run: the resolved run.
            dataset: the prepared dataset.
            data: its folder.
            inputs: the other files that it reads.
            folder: of the run, for what is set aside, and for work that is too large for memory.
        """

    @abstractmethod
    def __init__(self, settings: Any, tensors: Mapping[str, Tensor]) -> None:
        """From what was made."""

    @abstractmethod
    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) scores, item 1 in the first column."""

    def remarks(self, cases: Cases, evaluation: Evaluation) -> list[str]:
        """What must be said beside the numbers of these cases."""
        return []


class Counted(Fixed):
    """A system that is fitted by counting."""

    @staticmethod
    @abstractmethod
    def fit(settings: Any, histories: TrainingHistories, items: int) -> dict[str, Tensor]:
        """What is counted in training histories over a catalogue of so many items."""

    @classmethod
    def make(cls, run: Run, dataset: Dataset, data: Path, inputs: RunInputs, folder: Path) -> dict[str, Tensor]:
        """See `Fixed.make`."""
        return cls.fit(run.method, training_histories(dataset), dataset.n_items)


def recommender(run: Run) -> type[Recommender]:
    """The code of a trained run's system."""
    kind: type[Recommender] = implementation(run.method)
    return kind


def fixed(run: Run) -> type[Fixed]:
    """The code of a system without training."""
    kind: type[Fixed] = implementation(run.method)
    return kind
