"""Judge one trained run again as more and more of its items' pictures and texts is missing; nothing is trained.

Items that lose something lose it wherever they stand, as in `missing`: the run is built again with tables that lack
their rows. Positions of a history lose something for themselves: an item is then one of at most four, by what it lacks,
and has a vector for each; a position reads the one that is drawn for it. Candidates stay whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tessera.artifacts.files import file_digest
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import CORRUPTION, write_table
from tessera.data.dataset import Cases, load_dataset
from tessera.evaluation.candidates import read_candidates
from tessera.evaluation.drawn_users import of_drawn_users
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import Scorer, rank_cases
from tessera.recommenders.availability import drawn
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.missing import lost_rows
from tessera.recommenders.systems.base import Catalogue, VectorScorer
from tessera.settings.evaluation import Evaluation
from tessera.settings.missing import (
    ItemPattern,
    Lose,
    Missing,
    Modality,
    Pattern,
    Robustness,
    at_rate,
    modalities,
)
from tessera.settings.runs import Run


class HistoryLosses:
    """A trained run whose histories lose something at positions of their own."""

    def __init__(self, states: Sequence[Scorer], pattern: Pattern, lost: Sequence[Modality], seed: int) -> None:
        """
        Args:
            states: the run with nothing lost, and then with every set of `lost` gone from all items: bit m of a place
                is set where `lost[m]` is gone.
            pattern: of histories.
            lost: what can be lost.
            seed: of the draws.
        Raises:
            ValueError: it scores by something else than item vectors.
        """
        scorers = [state for state in states if isinstance(state, VectorScorer)]
        if len(scorers) < len(states):
            raise ValueError(f"{pattern} is drawn for histories, but the run does not read them by item vectors")
        self.whole, self.pattern, self.lost, self.seed = scorers[0], pattern, tuple(lost), seed
        self.max_history, self.reads_times = self.whole.max_history, self.whole.reads_times
        whole: Catalogue = self.whole.prepared
        self.items = len(whole.read)
        for module in self.whole.model.modules():
            if isinstance(module, Backbone):
                module.repeats_after = self.items
        self.catalogue = whole._replace(read=torch.cat([scorer.prepared.read for scorer in scorers]))
        self.bits = 2 ** torch.arange(len(lost), device=whole.read.device)
        self.rates = torch.zeros(len(lost), dtype=torch.float64)

    def at(self, rate: float) -> HistoryLosses:
        """The same at a missing rate."""
        self.rates = torch.full((len(self.lost),), rate, dtype=torch.float64)
        return self

    def moved(self, histories: Histories) -> Histories:
        """Histories whose ids lead to the vectors of items that lost what is drawn for a position."""
        items = histories.items
        whole = torch.ones(self.items, len(self.lost), dtype=torch.bool, device=items.device)
        there = drawn(self.pattern, self.rates, items, whole, histories.users, self.seed, self.lost)
        state = (~there * self.bits).sum(-1)
        return replace(histories, items=items + state * self.items)

    @torch.no_grad()
    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) scores."""
        return self.whole.model.score(self.moved(histories.to(self.whole.device)), self.catalogue).float()


class _Judge:
    """One run under losses; equal losses are judged once."""

    def __init__(
        self,
        run: Run,
        settings: Robustness,
        evaluation: Evaluation,
        model: Path,
        popularity: np.ndarray,
        inputs: RunInputs,
        cases: Cases,
        chosen: np.ndarray | None,
    ) -> None:
        self.run, self.settings, self.inputs, self.popularity = run, settings, inputs, popularity
        self.load = partial(load_scorer, model, run, popularity)
        self.rank = partial(rank_cases, cases=cases, settings=evaluation, candidates=chosen)
        self.order = np.argsort(cases.users, kind="stable")
        self.known: dict[tuple[bytes, ...], np.ndarray] = {}
        self.made = sorted({modality for made in inputs.modalities.values() for modality in made})

    def curve(self, pattern: Pattern, lose: Lose) -> list[np.ndarray]:
        """(cases,) ranks at every rate, by user."""
        if pattern in get_args(ItemPattern):
            return [self._items(at_rate(pattern, lose, rate, self.settings.seed)) for rate in self.settings.rates]  # type: ignore[arg-type]
        lost = [modality for modality in modalities(lose) if modality in self.made]
        if not lost:
            return [self._whole()] * len(self.settings.rates)
        scorer = HistoryLosses([self._without(gone) for gone in _subsets(lost)], pattern, lost, self.settings.seed)
        return [self._ranks(scorer.at(rate)) if rate else self._whole() for rate in self.settings.rates]

    def _whole(self) -> np.ndarray:
        return self._items(Missing())

    def _items(self, missing: Missing) -> np.ndarray:
        """Ranks where items lose something everywhere."""
        inputs = self.inputs.model_copy(update={"judged": missing})
        lost = [lost_rows(missing, made, len(self.popularity) - 1) for _, made in sorted(inputs.modalities.items())]
        key = tuple(b"" if one is None else np.packbits(one.rows.numpy()).tobytes() for one in lost)
        if key not in self.known:
            self.known[key] = self._ranks(self.load(inputs))
        return self.known[key]

    def _without(self, gone: Sequence[Modality]) -> Scorer:
        """The run where no item has what is gone."""
        missing = Missing.model_validate(dict.fromkeys(gone, 1.0))
        return self.load(self.inputs.model_copy(update={"judged": missing}))

    def _ranks(self, scorer: Scorer) -> np.ndarray:
        return self.rank(scorer).ranks[self.order]


def _subsets(lost: Sequence[Modality]) -> list[list[Modality]]:
    """Every set of them, the empty one first: bit m of its place is set where `lost[m]` is in it."""
    return [[name for bit, name in enumerate(lost) if number >> bit & 1] for number in range(2 ** len(lost))]


def corrupt_run(
    run: Run,
    settings: Robustness,
    evaluation: Evaluation,
    model: Path,
    data: Path,
    inputs: RunInputs,
    candidates: Path | None,
    output: Path,
    test_users: Path | None = None,
) -> None:
    """Rank every test target at every missing rate, and write the ranks.

    Args:
        inputs: with `modalities`, what every table is made from.
        test_users: whose targets are ranked; None for everybody's.
    Raises:
        ArtifactError: the weights were trained on another catalogue, or a table says nothing of any item.
        ValueError: a pattern of histories, and a system that does not read them by item vectors.
    """
    dataset = load_dataset(data)
    popularity = dataset.train_counts
    for name in inputs.modalities:
        _tell_lacking(inputs, name, len(popularity) - 1)
    cases = of_drawn_users(test_users, dataset.cases("test", times=True))  # times are given to those that read them
    chosen = read_candidates(candidates, cases, len(popularity) - 1) if candidates else None
    judge = _Judge(run, settings, evaluation, model, popularity, inputs, cases, chosen)
    order, users = judge.order, len(cases)
    shared: Mapping[str, np.ndarray] = {
        "user": cases.users[order],
        "item": cases.targets[order],
        "popularity": popularity[cases.targets[order]],
        "repeat": cases.repeats[order],
    }
    parts = []
    with Progress("curves", len(settings.curves), "curves") as progress:
        for pattern, lose in settings.curves:
            for rate, ranks in zip(settings.rates, judge.curve(pattern, lose), strict=True):
                names = {"pattern": [pattern] * users, "lose": [lose] * users, "rate": np.full(users, rate)}
                columns = {**names, **shared, "rank": ranks}
                parts.append(pa.table(columns).select(CORRUPTION.names).cast(CORRUPTION))
            progress.update(1)
    described = {"system": run.system, "recommender": run.recommender, "seed": run.seed}
    described |= {"robustness": settings.model_dump(mode="json")}
    read = {"candidates": candidates, "test_users": test_users}
    digests = {name: file_digest(path) for name, path in read.items() if path}
    write_table(output, pa.concat_tables(parts), "corruption", described, digests)


def _tell_lacking(inputs: RunInputs, name: str, items: int) -> None:
    """Say how many items a table lacks before anything is lost: they lack it at every rate."""
    path = inputs.tables[name]
    if "item" not in pq.read_schema(path).names:  # of users
        return
    lacking = items - len(pq.read_table(path, columns=["item"]).column("item").unique())
    if lacking:
        log.info("table %s: %s of %s items have no row of their own at any rate", name, f"{lacking:,}", f"{items:,}")
