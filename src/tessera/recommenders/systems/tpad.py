"""TPAD-style session recommendation: what items are, taken apart by what sessions say of their transitions.

A reconstruction: of the paper (arXiv 2504.10538) the abstract was known here (docs/systems/tpad.md). Three phases of
one program. A model of IDs learns to say the next item, and what it holds when an item has just come, the mean over all
training occurrences, is that item's transfer feature. Knowledge features (rows of item tables) are taken apart into
what tells of the transfer feature and what does not. Both parts, frozen, then stand beside IDs under any backbone.

Nothing but training interactions reaches a transfer feature.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.inputs import RunInputs, Table
from tessera.recommenders.item_encoders.ids import IdItemEncoder
from tessera.recommenders.item_encoders.parts import at_most, standard, standardized
from tessera.recommenders.missing import Lost, Present
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, Validate, VectorRecommender
from tessera.recommenders.tower import Tower
from tessera.recommenders.transitions import Disentangler, Laws, Parts, disentangling_losses, mean_states
from tessera.recommenders.window_batches import window_batches
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.tpad import TPADSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term, reported
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

TRANSFER = "transfer"


class Knowledge(nn.Module):
    """The knowledge features of a modality, centred and at unit mean square, and which items have them."""

    table: Tensor

    def __init__(self, name: str, table: Table, lost: Lost | None) -> None:
        super().__init__()
        vectors, present = table
        self.name = name
        self.mean, self.scale = standard(vectors, present)
        # not saved with the weights: the table is an artifact of its own
        self.register_buffer("table", self.entering(vectors, present), persistent=False)
        self.present = Present(present, lost)

    def entering(self, vectors: Tensor, present: Tensor) -> Tensor:
        """(n, width) rows as they are read, zero where there is none."""
        return (vectors.float() - self.mean) / self.scale * present[:, None]


class Features(nn.Module):
    """What stands beside the IDs of items, frozen: x = norm(ID vector + weighted sum over modalities of W z)."""

    def __init__(self, items: int, widths: Mapping[str, int], dim: int) -> None:
        """
        Args:
            items: of the catalogue.
            widths: of z, by modality.
            dim: of item vectors.
        """
        super().__init__()
        self.ids = IdItemEncoder(items, dim)
        self.names = tuple(widths)
        for name, width in widths.items():
            # saved with the weights: they are made once, when the last phase begins
            self.register_buffer(f"z_{name}", torch.zeros(items + 1, width))
        self.maps = nn.ModuleDict({name: nn.Linear(width, dim, bias=False) for name, width in widths.items()})
        for name, width in widths.items():  # at the scale of the ID vectors
            nn.init.normal_(self.maps[name].get_parameter("weight"), std=0.02 / width**0.5)
        self.gate = nn.Parameter(torch.zeros(len(widths)))
        self.norm = nn.LayerNorm(dim)
        nn.init.constant_(self.norm.weight, dim**-0.5)  # item vectors of length one

    def forward(self, available: Tensor) -> Tensor:
        """(items + 1, dim) item vectors; `available` (items + 1, modalities) says what each item has."""
        weights = self.gate.expand(available.shape).masked_fill(~available, -torch.inf).softmax(1).nan_to_num(0.0)
        made = torch.stack([self.maps[name](self.get_buffer(f"z_{name}")) for name in self.names], 1)
        vectors: Tensor = self.norm(self.ids() + (weights[..., None] * made).sum(1))
        return vectors


class TPAD(VectorRecommender):
    """The model of transitions, the heads that take knowledge apart, and what recommends with it."""

    stage: Tensor
    tau: Tensor
    tau_present: Tensor

    def __init__(
        self,
        settings: TPADSystem,
        knowledge: Mapping[str, Knowledge],
        tower: Tower | None,
        transfer: Table | None,
        backbone: Backbone,
        loss: CatalogueLoss,
        items: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.settings, self.loss, self.seed = settings, loss, seed
        self.tower, self.backbone = tower, backbone
        self.max_history = backbone.max_length
        width = backbone.dim if transfer is None else transfer[0].shape[1]
        self.knowledge = nn.ModuleDict(knowledge)
        self.heads, self.laws = nn.ModuleDict(), nn.ModuleDict()
        disentangling = settings.disentangling
        if settings.features == "distilled":
            for name, part in knowledge.items():
                self.heads[name] = Disentangler(disentangling, part.table.shape[1], width)
                if disentangling.upper:
                    self.laws[name] = Laws(disentangling, width)
        widths = {
            "distilled": dict.fromkeys(knowledge, width + disentangling.width),
            "side_by_side": {name: part.table.shape[1] + width for name, part in knowledge.items()},
            "knowledge": {name: part.table.shape[1] for name, part in knowledge.items()},
            "transfer": {TRANSFER: width},
        }[settings.features]
        self.features = Features(items, widths, backbone.dim)
        # saved with the weights: what histories gave, and where a resumed training and a judge stand
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        self.of_transitions = False
        """Whether the last catalogue that was made is of the model of IDs."""
        self.register_buffer("tau", torch.zeros(items + 1, width) if transfer is None else standardized(*transfer))
        known = torch.zeros(items + 1, dtype=torch.bool)
        self.register_buffer("tau_present", known if transfer is None else transfer[1].clone())
        self.phases = self._phases()
        self.fitted: dict[str, tuple[Parts, Tensor]] = {}
        """What the laws are fitted to after a step of the heads, by modality."""

    def _phases(self) -> tuple[str, ...]:
        wanted = {
            TRANSFER: self.tower is not None and self.settings.generation,
            "distil": self.settings.features == "distilled",
            "recommend": True,
        }
        return tuple(name for name, there in wanted.items() if there)

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> TPAD:
        """See `Recommender.build`.

        Raises:
            ValueError: a table was not given, or says nothing of any item.
        """
        settings = run.method
        assert isinstance(settings, TPADSystem)
        assert run.backbone is not None
        items = len(popularity) - 1
        knowledge: dict[str, Knowledge] = {}
        named = settings.modalities if settings.features != "transfer" else {}
        for modality, name in named.items():
            knowledge[modality] = Knowledge(name, inputs.read_table(name, items), inputs.lost(name, items))
        transfer = tower = None
        if settings.reads_transfer and settings.transfer is not None:
            transfer = inputs.read_table(settings.transfer, items)
        kind = implementation(run.backbone)
        if settings.reads_transfer and transfer is None:
            tower = Tower(IdItemEncoder(items, run.backbone.dim), kind(run.backbone))
        loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
        return cls(settings, knowledge, tower, transfer, kind(run.backbone), loss, items, run.seed)

    def item_rows(self) -> Collection[str]:
        """None that a run could go on from.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the phases of TPAD begin with an untrained model and hand features over, which a start would undo"
        )

    # ------------------------------------------------------------ phases

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """Learn transitions, take knowledge apart, recommend.

        Raises:
            ValueError: there is nothing to take apart, which is told before anything is learned.
        """
        if "distil" in self.phases:
            met = torch.from_numpy(np.bincount(histories.items, minlength=len(self.tau_present)) > 0)
            self._refuse_nothing_to_take_apart(met if self.tower is not None else self.tau_present)
        batches = self.batches(run, histories)
        return [self._phase(run, name, batches, histories, validate) for name in self.phases]

    def _phase(
        self, run: Run, name: str, batches: WindowBatches, histories: TrainingHistories, validate: Validate
    ) -> Phase:
        begin = partial(self._begin, name, histories)
        if name != "distil":
            assert name == "recommend" or self.tower is not None
            parts = [self.features, self.backbone] if name == "recommend" else [self.tower]
            moved = [parameter for part in parts if part is not None for parameter in part.parameters()]
            phase = self.epochs(run, batches, validate, name)
            return replace(phase, begin=begin, optimizers={"model": Optimizer(run.training, moved)})
        settings = self.settings.disentangling
        rates = {"model": settings.learning_rate, "estimator": settings.estimator.learning_rate}
        moved_by = {"model": self.heads, "estimator": self.laws}
        optimizers = {
            key: Optimizer(run.training.model_copy(update={"learning_rate": rates[key]}), list(part.parameters()))
            for key, part in moved_by.items()
            if len(part)
        }
        return Phase(self._updates, FixedSteps(settings.steps), optimizers, None, name, begin, [self])

    @torch.no_grad()
    def _begin(self, phase: str, histories: TrainingHistories) -> None:
        """Hand over what the phase before learned: transfer features, then the features beside the IDs."""
        self.stage.fill_(self.phases.index(phase))
        if self.tower is not None and phase == next(name for name in self.phases if name != TRANSFER):
            tau = mean_states(self.tower.backbone, self.tower.vectors(), histories.offsets, histories.items)
            self.tau.copy_(standardized(*tau))
            self.tau_present.copy_(tau[1])
        if phase == "recommend":
            for name in self.features.names:
                self.features.get_buffer(f"z_{name}").copy_(self._z(name))

    def _z(self, name: str) -> Tensor:
        """(items + 1, width) what stands beside the IDs, of a modality."""
        if name == TRANSFER:
            return self.tau
        table = self._knowledge(name).table
        if self.settings.features == "knowledge":
            return table
        if self.settings.features == "side_by_side":
            return torch.cat([table, self.tau], 1)
        return self._taken_apart(name, table)

    def _taken_apart(self, name: str, rows: Tensor) -> Tensor:
        return torch.cat(tuple(self._heads(name)(rows)), 1)

    def _heads(self, name: str) -> Disentangler:
        heads = self.heads[name]
        assert isinstance(heads, Disentangler)
        return heads

    def _laws(self, name: str) -> Laws | None:
        laws = self.laws[name] if len(self.laws) else None
        assert laws is None or isinstance(laws, Laws)
        return laws

    def _knowledge(self, name: str) -> Knowledge:
        knowledge = self.knowledge[name]
        assert isinstance(knowledge, Knowledge)
        return knowledge

    def _available(self) -> Tensor:
        """(items + 1, modalities) what each item has for now."""
        if self.settings.features == "transfer":
            return self.tau_present[:, None]
        return torch.stack([self._knowledge(name).present() for name in self.features.names], 1)

    # ------------------------------------------------------------ knowledge taken apart

    def _updates(self, _: None, at: Position) -> Iterator[Update]:
        yield Update(partial(self._distil_losses, at))
        if len(self.laws):
            yield Update(self._law_losses, "estimator")

    def _distil_losses(self, at: Position) -> Losses:
        """Of some items that have both features; the same ones in all processes."""
        settings = self.settings.disentangling
        weights = {"lower": settings.lower, "upper": settings.upper, "mmd": settings.mmd}
        weights["reconstruction"] = settings.reconstruction
        terms: dict[str, list[Tensor]] = {}
        self.fitted = {}
        for number, name in enumerate(self.heads):
            members = self._members(name, number, at)
            if len(members) < 2:  # nothing to compare
                continue
            knowledge, transfer = self._knowledge(name).table[members], self.tau[members]
            losses, parts = disentangling_losses(settings, self._heads(name), self._laws(name), knowledge, transfer)
            self.fitted[name] = (Parts(*(part.detach() for part in parts)), transfer)
            for key, loss in losses.items():
                terms.setdefault(key, []).append(loss)
        if not terms:
            self._refuse_nothing_to_take_apart(self.tau_present)
        means = {key: torch.stack(losses).mean() for key, losses in terms.items()}
        curves = {f"{key}_bound": reported(loss.detach()) for key, loss in means.items() if key in ("lower", "upper")}
        return {**{key: Term(weights[key] * loss) for key, loss in means.items()}, **curves}

    def _refuse_nothing_to_take_apart(self, met: Tensor) -> None:
        """Raise where no modality has two items with knowledge that are among those that were met (items + 1,)."""
        both = [self._knowledge(name).present() & met.to(self.tau_present.device) for name in self.heads]
        if all(int(items[1:].sum()) < 2 for items in both):
            raise ValueError(
                "tpad: fewer than two items have both a row of knowledge and a transfer feature (of a "
                "training interaction, or of `transfer`): there is nothing to take apart; take features: side_by_side"
            )

    def _members(self, name: str, number: int, at: Position) -> Tensor:
        """(n,) items of a step whose knowledge of a modality is taken apart."""
        both: Tensor = (self._knowledge(name).present() & self.tau_present)[1:].nonzero()[:, 0] + 1
        return at_most(both, self.settings.disentangling.items, self.seed, number, at.step)

    def _law_losses(self) -> Losses:
        """How badly the laws know the parts that the step before made."""
        misfits = []
        for name, (parts, transfer) in self.fitted.items():
            laws = self._laws(name)
            assert laws is not None
            misfits.append(laws.misfit(parts, transfer))
        self.fitted = {}
        loss = torch.stack(misfits).mean()
        return {"law": Term(loss), "misfit": reported(loss.detach())}

    # ------------------------------------------------------------ recommendation

    @property
    def _learns_transitions(self) -> bool:
        return self.phases[int(self.stage)] == TRANSFER

    def _reads(self) -> tuple[Backbone, Tensor]:
        """The backbone of the phase and the item vectors that it reads."""
        if self._learns_transitions:
            assert self.tower is not None
            return self.tower.backbone, self.tower.vectors()
        return self.backbone, self.features(self._available())

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Windows of training histories that lose no target."""
        return window_batches(self.backbone, run, histories)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of the targets of windows."""
        backbone, vectors = self._reads()
        states, targets, owners = backbone.examples(histories.items, vectors)
        total = self.loss(states, vectors, targets, owners, histories.items)
        return {"recommendation": Term(total, torch.full((), len(targets), device=total.device))}

    def catalogue(self) -> Catalogue:
        """Histories read items as targets are scored."""
        self.of_transitions = self._learns_transitions
        _, vectors = self._reads()
        return Catalogue(vectors, vectors)

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, dim) the backbone's state after the last item."""
        # not by the stage, a number that a graph to hand on would depend on
        backbone = self.tower.backbone if self.of_transitions and self.tower is not None else self.backbone
        states: Tensor = backbone.encode(histories.items, histories.lengths, catalogue.read)
        return states[:, None]

    # ------------------------------------------------------------ new items

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `Recommender.add_items`: a new item is what its knowledge says, with no ID vector of its own.

        Raises:
            ValueError: transfer features stand beside the IDs, and no session has told of a new item.
        """
        if not self.settings.takes_new:
            raise ValueError(f"features: {self.settings.features} needs sessions that an item was met in")
        ids = self.features.ids
        for name in self.features.names:
            knowledge = self._knowledge(name)
            vectors, present = tables[knowledge.name]
            rows = knowledge.entering(vectors, present).to(ids.weight.device)
            knowledge.table = torch.cat([knowledge.table, rows])
            knowledge.present.add(present)
            new = rows if self.settings.features == "knowledge" else self._taken_apart(name, rows)
            key = f"z_{name}"
            setattr(self.features, key, torch.cat([self.features.get_buffer(key), new]))
            count = len(new)
        ids.weight = nn.Parameter(F.pad(ids.weight, (0, 0, 0, count)))
