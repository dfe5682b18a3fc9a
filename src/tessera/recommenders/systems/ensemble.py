"""Trained systems side by side: the sum of weight x log p(item | history) over them.

Nothing is trained here: the members are finished runs. Their shares of the sum are chosen on validation, one member
after the other, until a pass over all of them changes nothing. A geometric mean of distributions, as this is up to a
constant a user, is a logarithmic opinion pool (Genest and Zidek, Statistical Science 1986).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tessera.artifacts.logs import Progress, log
from tessera.artifacts.models import read_model
from tessera.artifacts.tables import ArtifactError
from tessera.evaluation.histories import Histories
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import UNSCORED, Recommender, TrainingHistories, Validate, recommender
from tessera.settings.runs import Run
from tessera.settings.systems.ensemble import EnsembleSystem
from tessera.training.losses import Losses
from tessera.training.phases import Batches, FixedSteps, Phase, Position

REMEMBERED = 3 << 29
"""Most bytes of members' scores that are kept while shares are chosen; what goes beyond is scored anew every time."""


class Prepared(NamedTuple):
    """What scoring needs, made once."""

    members: list[Any]
    """What each member made; None of one without a share."""
    shares: list[float]


@dataclass
class _Remembered:
    """What the members say, while only their shares change."""

    prepared: list[Any]
    parts: dict[bytes, list[Tensor]] = field(default_factory=dict)
    """By histories: (batch, items) log-probabilities of each member."""
    size: int = 0
    """Bytes of the parts, and of the first that there was no room for."""

    @property
    def full(self) -> bool:
        """Whether nothing more is kept."""
        return self.size > REMEMBERED


class Ensemble(Recommender):
    """Finished runs, and the share of each."""

    shares: Tensor
    unscored = UNSCORED

    def __init__(self, settings: EnsembleSystem, names: Sequence[str], members: Sequence[Recommender]) -> None:
        """
        Args:
            settings: of the system.
            names: of the members, as the log and `selected` call them.
            members: the runs, trained or about to be read.
        """
        super().__init__()
        self.settings, self.names = settings, list(names)
        self.members, self.runs = nn.ModuleList(members), tuple(members)
        limits = [member.max_history for member in members]
        self.max_history = None if None in limits else max(limit for limit in limits if limit is not None)
        self.reads_times = any(member.reads_times for member in members)
        self.weights_of: list[str] = []
        """Files of the members' weights; empty where the ensemble has been made."""
        self.chosen: dict[str, float] = {}
        """What the run that was validated chose, where this one cannot be."""
        self._remembered: _Remembered | None = None
        self.register_buffer("shares", _of_one(settings.weights or [1.0] * len(members)))

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> Ensemble:
        """See `Recommender.build`."""
        settings = run.method
        assert isinstance(settings, EnsembleSystem)
        members = [recommender(one).build(one, inputs.under(one), popularity) for one in run.members]
        made = cls(settings, [one.path for one in run.members], members)
        made.weights_of = inputs.members
        return made

    # ------------------------------------------------------------ training

    def batches(self, run: Run, histories: TrainingHistories) -> Batches:
        """There are none."""
        raise NotImplementedError("an ensemble trains nothing")

    def losses(self, histories: Any, at: Position) -> Losses:
        """There are none."""
        raise NotImplementedError("an ensemble trains nothing")

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """One phase without a step: when it begins, shares are chosen.

        Members are read before it, as whoever goes on after a kill begins nothing: a checkpoint holds tensors of the
        shapes that stood when training was made, and a member's are known when it has been read.
        """
        self._read_members()

        def begin() -> None:
            if self.settings.weights is None:
                self._choose(validate)

        return [Phase(lambda batch, at: (), FixedSteps(0), {}, name="shares", begin=begin)]

    def _read_members(self) -> None:
        for member, file in zip(self.runs, self.weights_of, strict=True):
            tensors, description = read_model(Path(file))
            try:
                member.load_state_dict(tensors)
            except RuntimeError as error:
                wrong = str(error).partition("\n")[2].strip() or str(error)
                raise ArtifactError(f"{file}: not the weights of {description['run']['system']!r}: {wrong}") from None

    @torch.no_grad()
    def _choose(self, validate: Validate) -> None:
        """From equal shares, one member after the other, the share of the best NDCG@10; of equals the present one."""
        if validate is None:
            self.shares.copy_(_of_one([self.chosen.get(name, 1.0) for name in self.names]))
            return
        self.eval()
        self._remembered = _Remembered([member.prepare() for member in self.runs])
        best, tried = validate()["NDCG@10"], self.settings.shares
        log.info("equal shares: validation NDCG@10 %.4f", best)
        with Progress("shares", self.settings.rounds * len(self.runs), "members") as progress:
            for _ in range(self.settings.rounds):
                before = self.shares.clone()
                for number in range(len(self.runs)):
                    start, chosen = self.shares.clone(), self.shares.clone()
                    for share in tried:
                        self.shares.copy_(_with_share(start, number, share))
                        if (value := validate()["NDCG@10"]) > best:
                            best, chosen = value, self.shares.clone()
                    self.shares.copy_(chosen)
                    progress.update(1, f"NDCG@10 {best:.4f}")
                if torch.equal(before, self.shares):
                    break
        self._remembered = None
        shown = ", ".join(f"{name} {share:.3g}" for name, share in zip(self.names, self.shares.tolist(), strict=True))
        log.info("the best on validation (NDCG@10 %.4f): %s", best, shown)

    def selected(self) -> dict[str, float]:
        """See `Recommender.selected`: the share of every member, where they were chosen."""
        if self.settings.weights is not None:
            return {}
        return {name: round(share, 6) for name, share in zip(self.names, self.shares.tolist(), strict=True)}

    def select(self, values: Mapping[str, float]) -> None:
        """See `Recommender.select`."""
        self.chosen = dict(values)

    # ------------------------------------------------------------ items

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `Recommender.add_items`."""
        for member in self.runs:
            member.add_items(tables)

    def item_rows(self) -> Collection[str]:
        """Those of the members."""
        return [f"members.{number}.{name}" for number, one in enumerate(self.runs) for name in one.item_rows()]

    # ------------------------------------------------------------ scores

    def prepare(self) -> Prepared:
        """See `Recommender.prepare`; a member without a share has nothing to prepare."""
        shares = self.shares.tolist()
        if self._remembered is not None:
            return Prepared(self._remembered.prepared, shares)
        members = [one.prepare() if share else None for one, share in zip(self.runs, shares, strict=True)]
        return Prepared(members, shares)

    def score(self, histories: Histories, prepared: Prepared) -> Tensor:
        """(batch, items) weighted sums of the members' log-probabilities."""
        summed: Tensor | None = None
        known = self._known(histories) if self._remembered is not None else []
        for number, share in enumerate(prepared.shares):
            if share:
                part = known[number] if known else self._log_probabilities(number, histories, prepared.members)
                summed = share * part if summed is None else summed.add(part, alpha=share)
        assert summed is not None
        return summed

    def score_known(self, histories: Histories, prepared: Prepared) -> Tensor:
        """See `Recommender.score_known`: what one member with a share knows, is known."""
        scores = self.score(histories, prepared)
        asked = [pair for *pair, share in zip(self.runs, prepared.members, prepared.shares, strict=True) if share]
        # most members know every item, and need not be asked again; what is unknown to all is the last in any case
        if self._remembered is not None or any(member.unscored == -torch.inf for member, _ in asked):
            return scores
        known = torch.zeros_like(scores, dtype=torch.bool)
        for member, made in asked:
            known |= member.score_known(histories.latest(member.max_history), made) > member.unscored
        return torch.where(known, scores, self.unscored)

    def _log_probabilities(self, number: int, histories: Histories, prepared: Sequence[Any]) -> Tensor:
        member = self.runs[number]
        scores: Tensor = member.score(histories.latest(member.max_history), prepared[number])
        return scores.float().log_softmax(1)

    def _known(self, histories: Histories) -> list[Tensor]:
        """What the members say, as validation asks for the same histories each time; empty where memory is used up."""
        assert self._remembered is not None
        known = self._remembered
        key = histories.users.cpu().numpy().tobytes() + histories.items.cpu().numpy().tobytes()
        if key in known.parts:
            return known.parts[key]
        if known.full:
            return []
        parts = [self._log_probabilities(number, histories, known.prepared) for number in range(len(self.runs))]
        known.size += sum(part.nbytes for part in parts)
        if not known.full:
            known.parts[key] = parts
        return parts


def _of_one(weights: Sequence[float]) -> Tensor:
    """Weights as shares of their sum."""
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


def _with_share(shares: Tensor, number: int, share: float) -> Tensor:
    """Shares of which one is given and the others keep their ratios; where the others have none, they are equal."""
    others = shares.clone()
    others[number] = 0
    if not others.any():
        others.fill_(1)
        others[number] = 0
    changed = others / others.sum() * (1 - share)
    changed[number] = share
    return changed
