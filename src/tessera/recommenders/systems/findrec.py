"""FindRec (KDD 2025): streams of IDs, texts and pictures, aligned, and mixed by experts that the context chooses.

A reconstruction: of the paper the abstract was known here, and code of others (docs/systems/findrec.md). A backbone
reads the ID stream. Each modality passes an information bottleneck and is drawn to the law of the ID states by a
kernelised Stein discrepancy. Along the history the modalities read each other, in subspaces; in each subspace a gate
that knows the ID state weighs experts. What they make is fused with the ID state, and compared with the items.

Every position is trained: nothing here sees a later item.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import CausalBackbone, at_places
from tessera.recommenders.backbones.dropout import Dropout
from tessera.recommenders.experts import Experts, entropy_of, use_of
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.ids import IdItemEncoder
from tessera.recommenders.item_encoders.parts import as_long_as_the_step, of_all_processes
from tessera.recommenders.stream_alignment import Alignment
from tessera.recommenders.streams import Drawn, Exchange, Modalities, unit
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, Validate, VectorRecommender
from tessera.recommenders.window_batches import window_batches
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.findrec import FindRecSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term, reported
from tessera.training.phases import Optimizer, Phase, Position, Update


class _Targets(NamedTuple):
    """What the score network is fitted to after a step of the others."""

    states: Tensor
    noise: Tensor


class FindRec(VectorRecommender):
    """The ID stream, the streams of modalities, what aligns them, and the experts that mix them."""

    def __init__(
        self,
        settings: FindRecSystem,
        ids: IdItemEncoder,
        backbone: CausalBackbone,
        modalities: Modalities,
        loss: CatalogueLoss,
        seed: int,
    ) -> None:
        super().__init__()
        dim, number = backbone.dim, len(modalities.names)
        self.settings, self.loss, self.seed = settings, loss, seed
        self.items, self.backbone, self.modalities = ids, backbone, modalities
        self.exchange = Exchange(settings.width, settings.heads, number)
        self.experts = Experts(
            settings.width // settings.heads, dim, dim, settings.experts, settings.gate, settings.temperature,
            settings.dropout,
        )  # fmt: skip
        self.merge = nn.Sequential(
            nn.Linear(settings.heads * dim, dim), nn.ReLU(), nn.LayerNorm(dim), Dropout(settings.dropout)
        )
        self.fuse = nn.Linear(2 * dim, dim)
        with torch.no_grad():  # the ID state as it is, and little of what the modalities say
            self.fuse.weight.copy_(torch.cat([torch.eye(dim), torch.randn(dim, dim) * 0.02], 1))
            self.fuse.bias.zero_()
        self.norm = nn.LayerNorm(dim)
        self.alignment = (
            None if settings.alignment is None else Alignment(settings.alignment, dim, settings.width, number)
        )
        self.content: nn.ModuleList | None = None
        if settings.scoring == "streams":
            self.content = nn.ModuleList(nn.Linear(settings.width, dim, bias=False) for _ in range(number))
            for layer in self.content.children():  # at the scale of the ID vectors
                nn.init.normal_(layer.get_parameter("weight"), std=0.02 / settings.width**0.5)
        self.max_history = backbone.max_length
        self.fitted: _Targets | None = None
        """Of the step that is going on."""

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> FindRec:
        """See `Recommender.build`.

        Raises:
            ValueError: a table was not given or says nothing of any item, or the backbone looks both ways.
        """
        settings = run.method
        assert isinstance(settings, FindRecSystem)
        assert run.backbone is not None
        items, dim = len(popularity) - 1, run.backbone.dim
        tables = {name: inputs.read_table(table, items) for name, table in settings.modalities.items()}
        ids = IdItemEncoder(items, dim)
        backbone = implementation(run.backbone)(run.backbone)
        if not isinstance(backbone, CausalBackbone):
            raise ValueError(f"{run.system}: the backbone {run.recommender!r} is not causal; findrec needs one that is")
        lost = {name: inputs.lost(table, items) for name, table in settings.modalities.items()}
        loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
        return cls(settings, ids, backbone, Modalities(settings, tables, lost), loss, run.seed)

    def item_rows(self) -> Collection[str]:
        """The ID vectors; what modalities say of an item is read from the tables."""
        return ["items.weight"]

    # ------------------------------------------------------------ training

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Windows of training histories that lose no target; all of their positions are trained."""
        return window_batches(self.backbone, run, histories, every_position=True)

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """One phase of epochs; with a score, two optimisers in turn, and neither moves what is the other's."""
        phase = self.epochs(run, self.batches(run, histories), validate)
        if self.alignment is None or self.alignment.score is None:
            return [phase]
        score = list(self.alignment.score.parameters())
        of_score = {id(parameter) for parameter in score}
        model = [parameter for parameter in self.parameters() if id(parameter) not in of_score]
        rate = self.alignment.settings.score.learning_rate
        optimizers = {
            "model": Optimizer(run.training, model),
            "score": Optimizer(run.training.model_copy(update={"learning_rate": rate}), score),
        }
        return [replace(phase, updates=self._updates, optimizers=optimizers)]

    def _updates(self, batch: Histories, at: Position) -> Iterator[Update]:
        histories = batch.to(self.items.weight.device)
        yield Update(partial(self.losses, histories, at))
        yield Update(self._score_losses, "score")

    def _score_losses(self) -> Losses:
        """How badly the score network knows the ID states that the step before saw."""
        assert self.alignment is not None
        assert self.fitted is not None
        loss = self.alignment.fit(*self.fitted)
        self.fitted = None
        return {"score": Term(loss), "score_matching": reported(loss.detach())}

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of the targets of windows, of the bottlenecks, of the alignment, and of the use of the experts."""
        # which items a step reads, so also its draws, depends on where its longest history ends
        histories = replace(histories, items=as_long_as_the_step(histories.items))
        inputs, targets = histories.items[:, :-1], histories.items[:, 1:]
        real = targets > 0
        ids = self.items()
        hidden = self.backbone.hidden(
            self.backbone.fused(F.embedding(inputs, ids), inputs > 0), real.sum(1)
        )  # fmt: skip
        generator = self._generator(at)
        unique: Tensor = of_all_processes(inputs.flatten()).unique()  # type: ignore[no-untyped-call]
        drawn = self.modalities(unique, self._noise(len(unique), generator, inputs.device))
        place = torch.searchsorted(unique, inputs.contiguous())
        vectors = self._apart(F.embedding(place, unit(drawn.vectors).flatten(1)))
        available = drawn.available[place]
        length = inputs.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=inputs.device).tril()
        exchanged = self.exchange(vectors, vectors, available[:, None] & causal[..., None])

        positions = real.flatten().nonzero().squeeze(1)
        of_ids = at_places(hidden, positions)
        states, gates = self._state(
            of_ids, exchanged.flatten(0, 1)[positions], available.flatten(0, 1)[positions]
        )  # fmt: skip
        chosen, owners = targets.flatten()[positions], positions // length
        total = self.loss(states, self._scored(ids), chosen, owners, histories.items)
        count = torch.full((), len(chosen), device=total.device)
        return {
            "recommendation": Term(total, count),
            **self._bottleneck_losses(drawn),
            **self._alignment_losses(drawn, of_ids, histories, positions, generator),
            **self._expert_losses(gates),
        }

    def _bottleneck_losses(self, drawn: Drawn) -> Losses:
        """The mean divergence of what the step read, each item once."""
        settings = self.settings.bottleneck
        if settings is None:
            return {}
        counts = drawn.known.sum(0).clamp(min=1)
        divergence = ((drawn.divergence * drawn.known).sum(0) / counts).mean()
        curves = {"divergence": reported(divergence.detach())}
        return {**curves, "bottleneck": Term(settings.weight * divergence)} if settings.weight else curves

    def _alignment_losses(
        self, drawn: Drawn, states: Tensor, histories: Histories, positions: Tensor, generator: torch.Generator
    ) -> Losses:
        """How unlike the ID stream the modalities are; what the score is fitted to is kept for the update after."""
        if self.alignment is None:
            return {}
        settings = self.alignment.settings
        own = self.alignment.project(states)
        cloud = _in_order(own, positions, histories.items.shape[1] - 1)
        cloud = cloud[_some(len(cloud), settings.most_items, generator, cloud.device)]
        cloud = cloud / cloud.square().mean().sqrt().clamp(min=1e-6)
        rows = _some(len(drawn.vectors), settings.most_items, generator, cloud.device)
        compared = Drawn(*(part[rows] for part in drawn))
        if self.alignment.score is not None:
            noise = torch.randn(cloud.shape, generator=generator).to(cloud.device)
            self.fitted = _Targets(cloud, noise)
        return {"alignment": Term(settings.weight * self.alignment(compared, cloud))}

    def _expert_losses(self, gates: Tensor) -> Losses:
        """The balance of the experts, and how they are used: shares, their entropy, and that of a row's weights."""
        if self.settings.gate == "mean" or self.settings.experts == 1:
            return {}
        use = use_of(gates)
        count = torch.full((), len(gates), device=gates.device)
        curves = {
            "gate_entropy": Term(use.entropy, count, trained=False),
            "use_entropy": reported(entropy_of(use.shares)),
            **{f"expert_{number}": reported(share) for number, share in enumerate(use.shares, 1)},
        }
        if not self.settings.balance:
            return curves
        return {**curves, "balance": Term(self.settings.balance * use.balance, count)}

    def _generator(self, at: Position) -> torch.Generator:
        """Random numbers of a step that are the same in all its processes."""
        mixed = np.random.SeedSequence((self.seed, at.epoch, at.step)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))

    def _noise(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor | None:
        """(count, modalities, width) of the bottlenecks of a step; none when judged, or without bottlenecks."""
        if self.settings.bottleneck is None or not self.training:
            return None
        return torch.randn(count, len(self.modalities.names), self.settings.width, generator=generator).to(device)

    # ------------------------------------------------------------ states

    def _state(self, of_ids: Tensor, exchanged: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """(n, dim) states of users, and (n heads, modalities, experts) the weights of the experts.

        Args:
            of_ids: (n, dim) states of the ID stream.
            exchanged: (n, modalities, heads, width of a head).
            available: (n, modalities) bool.
        """
        heads = self.settings.heads
        # sizes by `shape`: `len` would write the number of rows into an exported graph
        mixed = self.experts(
            exchanged.transpose(1, 2).flatten(0, 1),
            available[:, None].expand(-1, heads, -1).flatten(0, 1),
            of_ids[:, None].expand(-1, heads, -1).flatten(0, 1),
        )
        merged = self.merge(mixed.vectors.view(of_ids.shape[0], heads * of_ids.shape[1]))
        states: Tensor = self.norm(self.fuse(torch.cat([of_ids, merged], 1)))
        return states, mixed.gates

    def _apart(self, vectors: Tensor) -> Tensor:
        """(batch, length, modalities, width) of what lies side by side (batch, length, modalities width)."""
        return vectors.view(*vectors.shape[:2], len(self.modalities.names), self.settings.width)

    def _scored(self, ids: Tensor, drawn: Drawn | None = None) -> Tensor:
        """(items + 1, dim) what states are compared with; `drawn` are the means of all items, where they are known."""
        if self.content is None:
            return ids
        drawn = self._means(len(ids)) if drawn is None else drawn
        vectors = unit(drawn.vectors)
        made = torch.stack([layer(vectors[:, number]) for number, layer in enumerate(self.content)], 1)
        counts = drawn.available.sum(1, keepdim=True).clamp(min=1)
        return ids + made.masked_fill(~drawn.available[..., None], 0).sum(1) / counts

    def _means(self, count: int) -> Drawn:
        """What the modalities say of all items, without a draw."""
        means: Drawn = self.modalities(torch.arange(count, device=self.items.weight.device))
        return means

    def catalogue(self) -> Catalogue:
        """Histories read ID vectors, modalities and which of these there are side by side."""
        ids: Tensor = self.items()
        drawn = self._means(len(ids))
        read = torch.cat([ids, unit(drawn.vectors).flatten(1), drawn.available.to(ids.dtype)], 1)
        return Catalogue(read, self._scored(ids, drawn))

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, dim) the state after the last item; modalities are read from there alone."""
        items, lengths = histories.items, histories.lengths
        dim = self.backbone.dim
        of_ids = self.backbone.encode(items, lengths, catalogue.read[:, :dim])
        number = len(self.modalities.names)
        vectors = self._apart(F.embedding(items, catalogue.read[:, dim:-number]))
        available = F.embedding(items, catalogue.read[:, -number:]) > 0.5
        rows = torch.arange(items.shape[0], device=items.device)
        exchanged = self.exchange(vectors[rows, lengths - 1][:, None], vectors, available[:, None])
        states, _ = self._state(of_ids, exchanged[:, 0], available[rows, lengths - 1])
        return states[:, None]


def _some(count: int, most: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """As many of `count` rows as are compared at most, in their order."""
    if count <= most:
        return torch.arange(count, device=device)
    return torch.randperm(count, generator=generator)[:most].sort().values.to(device)


def _in_order(rows: Tensor, positions: Tensor, length: int) -> Tensor:
    """Rows (n, width) of all processes' positions in a step, in the order in which one process would have had them.

    Args:
        rows: without gradients.
        positions: (n,) where they stand in this process's (batch, length), flat.
        length: of this process's histories.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    # rows of a batch are dealt in turn; a history is never longer than 2^32
    order = of_all_processes((positions // length * world + rank) * 2**32 + positions % length)
    gathered = torch.stack([of_all_processes(column) for column in rows.T.contiguous()], 1)
    return gathered[order.argsort()]
