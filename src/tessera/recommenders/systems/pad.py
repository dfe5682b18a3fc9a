"""PAD (SIGIR 2025): an ID tower, an aligned tower and a text tower, mixed by the popularity of the candidate.

Three phases of one program: the ID tower is trained alone; the aligned tower starts from it and is drawn, beside the
loss of the recommender, until its ID vectors are distributed as the projected text is; at last all three are trained
together, and a gate learns for each popularity bin how much the candidate's score owes to each.

s(u, i) = sum over towers t of w_t(b(i)) h_t(u) . e_t(i) is one inner product: the towers' states side by side, and the
item vectors side by side, each times its weight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.contrastive import soft_contrastive
from tessera.objectives.losses.base import CatalogueLoss
from tessera.objectives.mmd import kernel_mmd
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.ids import IdItemEncoder
from tessera.recommenders.item_encoders.parts import at_most, of_all_processes
from tessera.recommenders.item_encoders.table import TableItemEncoder
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, Validate, VectorRecommender
from tessera.recommenders.tower import Tower
from tessera.recommenders.towers import AlignedItems, Gate, text_items
from tessera.recommenders.window_batches import window_batches
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.pad import AlignmentPhase, Expert, PADSystem
from tessera.settings.training import Training
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import Optimizer, Phase, Position


class PAD(VectorRecommender):
    """The towers, the gate and the loss. Which of them score depends on the phase that training is in."""

    stage: Tensor

    def __init__(
        self, settings: PADSystem, towers: Mapping[str, Tower], gate: Gate, loss: CatalogueLoss, items: int, seed: int
    ) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        self.towers = nn.ModuleDict(towers)
        self.gate, self.loss, self.catalogue_size = gate, loss, items
        self.phases = tuple(settings.phases)
        # saved with the weights: a resumed training, and a judge, have to know it
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        self.scoring: tuple[Expert, ...] = tuple(settings.experts)
        """The towers of the last catalogue that was made."""
        self.backbone = (next(iter(towers.values())).backbone,)  # in a tuple, so that it is not registered twice
        self.max_history = self.backbone[0].max_length

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> PAD:
        """See `Recommender.build`.

        Raises:
            ValueError: the table was not given, or says nothing of any item.
        """
        settings = run.method
        assert isinstance(settings, PADSystem)
        assert run.backbone is not None
        items, dim = len(popularity) - 1, run.backbone.dim
        table, lost = inputs.read_table(settings.table, items), inputs.lost(settings.table, items)
        kind = implementation(run.backbone)
        towers: dict[str, Tower] = {}
        wanted: set[Expert] = set(settings.experts)
        if "pretrain" in settings.phases:
            wanted.add("id")
        if "id" in wanted:
            towers["id"] = Tower(IdItemEncoder(items, dim), kind(run.backbone))
        if "aligned" in wanted:
            fused = AlignedItems(settings, IdItemEncoder(items, dim), text_items(settings, table, lost, dim), dim)
            towers["aligned"] = Tower(fused, kind(run.backbone))
        if "text" in wanted:
            towers["text"] = Tower(text_items(settings, table, lost, dim), kind(run.backbone))
        loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
        model = cls(settings, towers, Gate(settings, popularity), loss, items, run.seed)
        model._share_table()
        return model

    def item_rows(self) -> Collection[str]:
        """None that a run could go on from.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the phases of PAD begin with untrained towers and hand weights over, which a start would undo"
        )

    # ------------------------------------------------------------ one table for both towers that read it

    def texts(self) -> list[TableItemEncoder]:
        """What reads the table."""
        return [part for part in self.modules() if isinstance(part, TableItemEncoder)]

    def _share_table(self) -> None:
        texts = self.texts()
        for other in texts[1:]:
            other.table = texts[0].table

    def _apply(self, fn: object, recurse: bool = True) -> PAD:
        """The table is moved once for all that read it."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._share_table()
        return self

    # ------------------------------------------------------------ phases

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """Pre-train, align, disentangle; see `PADSystem.phases`."""
        batches = self.batches(run, histories)
        return [self._phase(run, name, batches, validate) for name in self.phases]

    def _phase(self, run: Run, name: str, batches: WindowBatches, validate: Validate) -> Phase:
        settings = self.settings.phases[name]
        given = {key: getattr(settings, key) for key in ("learning_rate", "epochs", "patience")}
        training = Training.model_validate(
            {**run.training.model_dump(), **{key: value for key, value in given.items() if value is not None}}
        )
        own = run.model_copy(update={"training": training})
        validated = validate if not isinstance(settings, AlignmentPhase) or settings.anchor else None
        phase = self.epochs(own, batches, validated, name)
        parts: list[nn.Module] = [self.tower(tower) for tower in self._towers(name)]
        if name == self.phases[-1]:
            parts.append(self.gate)
        moved = [parameter for part in parts for parameter in part.parameters()]
        if isinstance(settings, AlignmentPhase) and not settings.anchor:
            aligned = self._aligned()
            moved = [*aligned.ids.parameters(), *aligned.text.parameters()]
        return replace(phase, begin=partial(self._begin, name), optimizers={"model": Optimizer(training, moved)})

    def tower(self, name: Expert) -> Tower:
        """A tower by its name."""
        tower = self.towers[name]
        assert isinstance(tower, Tower)
        return tower

    def _towers(self, phase: str) -> tuple[Expert, ...]:
        """The towers that a phase trains, and that score in it."""
        single: dict[str, tuple[Expert, ...]] = {"pretrain": ("id",), "align": ("aligned",)}
        return single.get(phase, tuple(self.settings.experts))

    @torch.no_grad()
    def _begin(self, phase: str) -> None:
        """Hand over what the ID tower learned to the aligned one, before the first phase that trains it."""
        self.stage.fill_(self.phases.index(phase))
        first = "align" if "align" in self.phases else "disentangle"
        if phase == first and "pretrain" in self.phases and "aligned" in self.towers:
            pretrained = self.tower("id")
            self._aligned().ids.load_state_dict(pretrained.items.state_dict())
            self.tower("aligned").backbone.load_state_dict(pretrained.backbone.state_dict())

    def _aligned(self) -> AlignedItems:
        items = self.tower("aligned").items
        assert isinstance(items, AlignedItems)
        return items

    # ------------------------------------------------------------ losses

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Windows of training histories that lose no target."""
        return window_batches(self.backbone[0], run, histories)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of the targets of windows, and in the second phase the alignment of the step's items."""
        phase = self.phases[int(self.stage)]
        if phase != "align":
            names = self._towers(phase)
            vectors = [self.tower(name).vectors() for name in names]
            return {"recommendation": self._recommendation(histories, names, vectors, phase == self.phases[-1])}
        settings, aligned = self.settings.align, self._aligned()
        assert settings is not None
        ids, text = aligned.parts()
        terms: dict[str, Term] = {}
        if settings.anchor:
            terms["recommendation"] = self._recommendation(histories, ("aligned",), [aligned.fuse(ids, text)], False)
        if settings.kernel != "none":
            terms["alignment"] = Term(self._alignment(settings, histories.items, ids, text, at))
        return terms

    def _recommendation(
        self, histories: Histories, names: tuple[Expert, ...], vectors: list[Tensor], gated: bool
    ) -> Term:
        backbones = [self.tower(name).backbone for name in names]
        drawn = backbones[0].draw(histories.items)  # all towers predict the same targets
        parts = [
            backbone.examples(histories.items, each, drawn) for backbone, each in zip(backbones, vectors, strict=True)
        ]
        states = torch.cat([part.states for part in parts], 1)
        targets, owners = parts[0].targets, parts[0].owners
        total = self.loss(states, self._folded(vectors, gated), targets, owners, histories.items)
        return Term(total, torch.full((), len(targets), device=total.device))

    def _folded(self, vectors: list[Tensor], gated: bool) -> Tensor:
        """(items + 1, towers x dim) item vectors side by side, each times its weight."""
        if not gated or len(vectors) == 1:
            return torch.cat(vectors, 1)
        weights = self.gate()
        return torch.cat([weight[:, None] * each for weight, each in zip(weights, vectors, strict=True)], 1)

    def _alignment(self, settings: AlignmentPhase, items: Tensor, ids: Tensor, text: Tensor, at: Position) -> Tensor:
        """How unlike the ID vectors and the projected text of the step's items are, times its weight."""
        members = at_most(self._members(items), settings.most_items, self.seed, at.epoch, at.step)
        if len(members) < 2:  # nothing that could be compared, but still a loss with a gradient
            return (ids.sum() + text.sum()) * 0
        weight = settings.weight or (0.01 if settings.kernel == "infonce" else 0.2)
        if settings.kernel == "infonce":
            return weight * soft_contrastive(
                text[members], ids[members], settings.temperature, normalize=True, targets="identity"
            )
        assert settings.kernel != "none"
        return weight * kernel_mmd(text[members], ids[members], settings.kernel)

    def _members(self, items: Tensor) -> Tensor:
        """(n,) items whose vectors are aligned: each of the step once, of all processes, that the table knows."""
        whole = of_all_processes(items.flatten())
        present = self._aligned().text.present()
        unique: Tensor = whole[whole > 0].unique()  # type: ignore[no-untyped-call]
        return unique[present[unique]]

    # ------------------------------------------------------------ scores

    def catalogue(self) -> Catalogue:
        """The vectors of all towers that score side by side; those that are scored hold their weights."""
        phase = self.phases[int(self.stage)]
        self.scoring = self._towers(phase)
        vectors = [self.tower(name).vectors() for name in self.scoring]
        return Catalogue(torch.cat(vectors, 1), self._folded(vectors, phase == self.phases[-1]))

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, towers x dim) the towers' states after the last item, side by side."""
        parts = catalogue.read.chunk(len(self.scoring), dim=1)
        states = [
            self.tower(name).backbone.encode(histories.items, histories.lengths, part)
            for name, part in zip(self.scoring, parts, strict=True)
        ]
        return torch.cat(states, 1)[:, None]

    # ------------------------------------------------------------ new items

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `Recommender.add_items`: a new item is as cold as can be; its ID vector is the mean of the cold ones."""
        cold = self.gate.bin_of == self.gate.coldest
        count = len(tables[self.settings.table][1])
        stands = cold if bool(cold.any()) else torch.arange(len(cold), device=cold.device) > 0
        for part in self.modules():
            if isinstance(part, IdItemEncoder):
                mean = part.weight[stands].mean(0, keepdim=True)
                part.weight = nn.Parameter(torch.cat([part.weight, mean.expand(count, -1)]))
            elif isinstance(part, TableItemEncoder):
                part.add_items(tables)
        self._share_table()
        self.gate.add(count)
