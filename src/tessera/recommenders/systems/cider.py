"""CIDer-style robustness: any multimodal item encoder under a causal backbone, trained whole and damaged at once.

CIDer (arXiv 2506.10452) classifies sentiments from words, sounds and pictures; what is here carries its ideas over to
histories of items (docs/systems/cider.md). Every step reads its histories twice with the same weights: as they are, and
without what a sampler takes away. The whole pass teaches the damaged one, and gets no gradient from that. Popularity is
accounted for in training, and after training a share tau of what shortcuts alone would recommend is taken off.

An item's vector depends on which of its modalities are there, and on nothing else of the damage: the encoder makes all
items once for each state that occurs, and a position's state picks the row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import Backbone, Examples
from tessera.recommenders.damaged_items import DamagedItems
from tessera.recommenders.debiasing import BinAdjustment, LogitAdjustment, shortcuts
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.recommenders.robustness import (
    Maps,
    Reconstruction,
    attention_divergence,
    direction_loss,
    score_divergence,
    some_items,
    watched,
)
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, Validate
from tessera.recommenders.systems.encoded_items import EncodedItems
from tessera.recommenders.window_batches import window_batches
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.cider import CIDerSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import FixedSteps, Phase, Position

_LEAST = 1e-9
"""Stands for a count of none: a loss over nothing is zero, not 0 / 0."""


class CIDer(EncodedItems):
    """An item encoder, a backbone, and what makes them hold without pictures or texts."""

    tau: Tensor
    tried: Tensor
    kept: Tensor
    spread: Tensor | None

    def __init__(
        self,
        settings: CIDerSystem,
        items: ItemEncoder,
        backbone: Backbone,
        loss: CatalogueLoss,
        popularity: np.ndarray,
        made_of: Mapping[str, Collection[str]],
        seed: int,
    ) -> None:
        """
        Args:
            settings: of the system.
            items: the encoder.
            backbone: a causal one.
            loss: of the recommender.
            popularity: (items + 1,) training interactions an item.
            made_of: by table, the modalities that it is made from.
            seed: of what is taken away.
        Raises:
            ValueError: nothing that the encoder reads is made from a picture or a text.
        """
        super().__init__()
        self.settings, self.items, self.backbone, self.loss = settings, items, backbone, loss
        self.seed, self.popularity = seed, popularity
        self.max_history = backbone.max_length
        used = settings.distillation
        self.damaged = DamagedItems(settings.damage, items, made_of, len(popularity), seed)
        if used.used and settings.damage.rate != 0:
            for view in self.damaged.views():
                view.present.learns = True  # the vector for what is absent
        self.reconstruction = Reconstruction(self.damaged.views(), backbone.dim) if used.reconstruction else None
        self.adjustment = self._adjustment()
        causal = settings.counterfactual
        self.register_buffer("tau", torch.tensor(self._given_tau()))
        # NDCG@10 of each tau that was tried, -1 before; saved, so that a resumed run still knows
        grid = causal.grid if causal is not None and causal.tau is None else []
        self.register_buffer("tried", torch.full((len(grid),), -1.0))
        chosen = np.zeros(len(popularity) if causal is not None and causal.keep == "shortcuts" else 0, bool)
        self.register_buffer("kept", torch.from_numpy(chosen))
        self.register_buffer("spread", None, persistent=False)
        self.applied = 0.0
        """The tau of the last catalogue that was made."""

    def _given_tau(self) -> float:
        causal = self.settings.counterfactual
        return causal.tau if causal is not None and causal.tau is not None else 0.0

    def _adjustment(self) -> LogitAdjustment | BinAdjustment | None:
        settings = self.settings.popularity
        if settings is None:
            return None
        if settings.adjustment == "logit":
            return LogitAdjustment(settings, self.popularity)
        return BinAdjustment(settings, self.popularity, self.damaged.views(), self.backbone.dim)

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> CIDer:
        """See `Recommender.build`.

        Raises:
            ValueError: a table was not given or says nothing of any item, nothing that is read could be lost, or the
                backbone looks both ways.
        """
        settings = run.method
        assert isinstance(settings, CIDerSystem)
        assert run.backbone is not None
        encoder: type[ItemEncoder] = implementation(settings.items)
        items = encoder.build(settings.items, inputs, len(popularity) - 1, run.backbone.dim)
        loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
        backbone = encoder.backbone(settings.items, run.backbone, implementation(run.backbone))
        if not run.backbone.causal_states:
            raise ValueError(f"{run.system}: the backbone {run.recommender!r} is not causal; cider needs one that is")
        return cls(settings, items, backbone, loss, popularity, run.modalities, run.seed)

    def item_rows(self) -> Collection[str]:
        """Those of the encoder, and which items are shortcuts."""
        return [*super().item_rows(), *(["kept"] if len(self.kept) else [])]

    def made_anew(self) -> Collection[str]:
        """Which items are shortcuts, a training finds in its own histories; and what is chosen."""
        return [*super().made_anew(), "kept", "tau", "tried"]

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `ItemEncoder.add_items`; nothing follows a new item yet."""
        super().add_items(tables)
        if len(self.kept):
            count = len(next(iter(tables.values()))[1])
            self.kept = torch.cat([self.kept, self.kept.new_zeros(count)])

    # ------------------------------------------------------------ training

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Windows of training histories that lose no target."""
        return window_batches(self.backbone, run, histories)

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """Epochs, and after them the choice of tau on validation, where it is to be chosen."""
        phase = self.epochs(run, self.batches(run, histories), validate)
        causal = self.settings.counterfactual
        if causal is None:
            return [phase]
        if len(self.kept):
            self.kept.copy_(torch.from_numpy(shortcuts(causal, histories, self.popularity)))
        if causal.tau is not None or validate is None:
            return [phase]

        def forget() -> None:
            self.tau.zero_()

        def choose() -> None:
            self._choose(causal.grid, validate)

        # no step: what is chosen is chosen when the phase begins, which happens once
        return [
            replace(phase, begin=forget),
            Phase(lambda batch, at: (), FixedSteps(0), {}, name="counterfactual", begin=choose),
        ]

    @torch.no_grad()
    def _choose(self, grid: list[float], validate: Validate) -> None:
        """The tau of the best NDCG@10; of equals the first, which is the smallest."""
        assert validate is not None
        self.eval()
        for number, tau in enumerate(grid):
            self.tau.fill_(tau)
            self.tried[number] = validate()["NDCG@10"]
        self.tau.fill_(grid[int(self.tried.argmax())])
        shown = ", ".join(f"{tau:g}: {value:.4f}" for tau, value in zip(grid, self.tried.tolist(), strict=True))
        log.info("tau %g is the best on validation (NDCG@10 of each: %s)", float(self.tau), shown)

    def selected(self) -> dict[str, float]:
        """See `Recommender.selected`: tau."""
        causal = self.settings.counterfactual
        return {} if causal is None or causal.tau is not None else {"tau": round(float(self.tau), 6)}

    def select(self, values: Mapping[str, float]) -> None:
        """See `Recommender.select`."""
        self.tau.fill_(values["tau"])

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of the whole pass, and what the damaged one brings."""
        used = self.settings.distillation
        if not used.used:
            vectors = self.items()
            whole = self.backbone.examples(histories.items, vectors)
            return self._recommendation(whole, vectors, vectors, histories, 1.0)
        again, states, vectors, made, read, candidates = self.damaged.draw(histories.items, at)
        watching = bool(used.attention and self.backbone.attends())
        maps = (Maps(), Maps()) if watching else (None, None)
        # the same layers drop the same numbers in both passes: those of the first histories come first
        seed = int(torch.randint(2**62, ()))
        torch.manual_seed(seed)
        with watched(self.backbone, maps[1]):
            whole = self.backbone.examples(histories.items, vectors)
        torch.manual_seed(seed)
        with watched(self.backbone, maps[0]):
            damaged = self.backbone.examples(read, made)

        terms = dict(self._recommendation(whole, vectors, vectors, histories, 1.0))
        # targets are in the order of their histories
        teacher = whole.states[: len(damaged.states)].detach()
        count = teacher.new_tensor(float(len(teacher)))
        if used.recommendation:
            asked = damaged._replace(targets=whole.targets[: len(teacher)])
            own = self._recommendation(asked, candidates, vectors, histories, used.recommendation, auxiliary=False)
            total = own["recommendation"].value
            assert isinstance(total, Tensor)
            terms["damaged"] = Term(total, count.clamp(min=_LEAST))
        if used.representation:
            terms["representation"] = _term(used.representation, direction_loss(damaged.states, teacher), count)
        if maps[0] is not None and maps[1] is not None:
            # positions with a target: a window's last item has none, and stands in `inputs` beside longer ones alone
            total, positions = attention_divergence(maps[0], maps[1], again[:, 1:] > 0)
            terms["attention"] = _term(used.attention, total, positions)
        if self.reconstruction is not None:
            terms["reconstruction"] = self._reconstructed(damaged, states, again)
        if used.scores:
            chosen = torch.from_numpy(some_items(len(vectors) - 1, used.scored_items, self.seed, at)).to(made.device)
            said, given = damaged.states @ candidates[chosen].T, teacher @ vectors[chosen].detach().T
            terms["scores"] = _term(used.scores, score_divergence(said, given, used.temperature), count)
        return terms

    def _recommendation(
        self,
        examples: Examples,
        vectors: Tensor,
        whole: Tensor,
        histories: Histories,
        weight: float,
        auxiliary: bool = True,
    ) -> dict[str, Term]:
        """The loss of the recommender, and those of the item encoder's whole vectors."""
        states, targets = examples.states, examples.targets
        compared = vectors
        if self.adjustment is not None:
            states, compared = self.adjustment.trained(states, vectors, targets)
        total = self.loss(states, compared, targets, examples.owners, histories.items)
        count = torch.full((), len(targets), device=total.device)
        own = self.items.auxiliary_losses(whole, targets) if auxiliary else {}
        return {
            "recommendation": Term(total if weight == 1 else weight * total, count),
            **{name: Term(loss) for name, loss in own.items()},
        }

    def _reconstructed(self, damaged: Examples, states: Tensor, items: Tensor) -> Term:
        """What the damaged states say of what was taken away at their positions and is really there."""
        assert self.reconstruction is not None
        inputs, targets = items[:, :-1], items[:, 1:]
        positions = (targets > 0).flatten().nonzero().squeeze(1)
        if len(positions) > len(damaged.states):  # only the last of each history is predicted
            owners = positions // targets.shape[1]
            positions = positions[owners.diff(append=owners.new_tensor([-1])) != 0]
        away = self.damaged.taken(states.flatten()[positions])
        total, count = self.reconstruction(self.damaged.views(), away, damaged.states, inputs.flatten()[positions])
        return _term(self.settings.distillation.reconstruction, total, count)

    # ------------------------------------------------------------ scores

    def catalogue(self) -> Catalogue:
        """Histories read items as they are scored; with a counterfactual, beside them what is left of them in it."""
        vectors: Tensor = self.items()
        bias = None if self.adjustment is None else self.adjustment.bias(vectors)
        self.applied = float(self.tau)
        if not self.applied:
            return Catalogue(vectors, vectors, bias)
        centred = vectors[1:] - vectors[1:].mean(0)
        self.spread = centred.T @ centred / len(centred)
        if not len(self.kept):
            return Catalogue(vectors, vectors, bias)
        with self.items.without(self.damaged.names):
            nothing = self.items()[1:].mean(0)
        left = torch.where(self.kept[:, None], vectors, nothing)
        return Catalogue(torch.cat([vectors, left], 1), vectors, bias)

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, dim) the state after the last item, less what shortcuts alone would have said.

        Scores of a user are z-normalised over the catalogue, s = z(x) - tau z(x_cf). Times the spread of z(x), and up
        to what is the same for all items, that is one product again: (h - tau spread(h) / spread(h_cf) h_cf) . e_i.
        """
        if not self.applied:
            return self.backbone.encode(histories.items, histories.lengths, catalogue.read)[:, None]
        items, lengths = histories.items, histories.lengths
        if len(self.kept):
            read, left = catalogue.read.chunk(2, dim=1)
            of_shortcuts = self.backbone.encode(items, lengths, left)
        else:
            read = catalogue.read
            rows = torch.arange(items.shape[0], device=items.device)
            of_shortcuts = self.backbone.encode(items[rows, lengths - 1][:, None], torch.ones_like(lengths), read)
        states = self.backbone.encode(items, lengths, read)
        scale = self._spread(states) / self._spread(of_shortcuts).clamp(min=1e-6)
        return (states - self.applied * scale * of_shortcuts)[:, None]

    def _spread(self, states: Tensor) -> Tensor:
        """(batch, 1) standard deviation of a state's scores over the catalogue."""
        assert self.spread is not None
        return ((states @ self.spread) * states).sum(1, keepdim=True).clamp(min=0).sqrt()


def _term(weight: float, total: Tensor, count: Tensor) -> Term:
    return Term(weight * total, count.clamp(min=_LEAST))
