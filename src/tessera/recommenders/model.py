"""A sequential recommender: items through an item encoder, histories through a backbone, a loss between them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tessera.artifacts.codes import read_codebooks, read_codes
from tessera.artifacts.models import read_tensors
from tessera.artifacts.sequences import read_item_sequences
from tessera.artifacts.tables import ArtifactError, read_item_table
from tessera.objectives.catalogue import CatalogueLoss, catalogue_loss
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.settings.base import Settings
from tessera.settings.recommenders import DualViewItems, SemanticIdItems, TableItems
from tessera.settings.systems import BackboneSystem, Run

# kind -> (module, class): loaded when used, and named to the workflow so that an edit to one re-runs only its own runs
BACKBONES = {
    "sasrec": ("tessera.recommenders.backbones.sasrec", "SASRec"),
    "gru4rec": ("tessera.recommenders.backbones.gru4rec", "GRU4Rec"),
    "bert4rec": ("tessera.recommenders.backbones.bert4rec", "BERT4Rec"),
}
ITEM_ENCODERS = {
    "ids": ("tessera.recommenders.item_encoders.ids", "IdItemEncoder"),
    "table": ("tessera.recommenders.item_encoders.table", "TableItemEncoder"),
    "semantic_ids": ("tessera.recommenders.item_encoders.semantic_ids", "SemanticIdEncoder"),
    "dual_view": ("tessera.recommenders.item_encoders.dual_view", "DualViewEncoder"),
}


def _load(place: tuple[str, str]) -> Any:
    return getattr(import_module(place[0]), place[1])


def build_backbone(settings: Settings, items: Settings | None = None) -> Backbone:
    """The backbone that the settings name, as items of two views enter it where they have two."""
    kind = _load(BACKBONES[settings.kind])  # type: ignore[attr-defined]
    backbone: Backbone
    if isinstance(items, DualViewItems) and items.backbone != "joint":
        half = settings.model_copy(update={"dim": settings.dim // 2})  # type: ignore[attr-defined]
        two_views = import_module("tessera.recommenders.backbones.two_views").TwoViews
        backbone = two_views([kind(half) for _ in range(1 if items.backbone == "shared" else 2)])
    else:
        backbone = kind(settings)
    if isinstance(items, DualViewItems) and items.axis == "sequence":
        fusion = import_module("tessera.recommenders.item_encoders.fusion").SequenceFusion
        backbone.fusion = fusion(backbone.dim, items.heads, backbone.causal)
    return backbone


class SequentialRecommender(nn.Module):
    """`encode` histories, `score` items; called with a batch of histories it gives its training loss."""

    def __init__(self, items: ItemEncoder, backbone: Backbone, loss: CatalogueLoss) -> None:
        super().__init__()
        self.items = items
        self.backbone = backbone
        self.loss = loss

    def forward(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the loss over the targets of histories (batch, length), and the number of targets.

        A further loss of the item encoder stands for the whole step: it is counted once a target, so that the mean
        over the targets of all processes holds it once.
        """
        vectors = self.items()
        states, targets, owners = self.backbone.examples(histories, vectors)
        total = self.loss(states, vectors, targets, owners, histories)
        further = self.items.further_loss(vectors, targets)
        if further is not None:
            total = total + further * len(targets)
        return total, torch.full((), len(targets), device=total.device)

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
        """(batch, dim) states of histories (batch, length), padded on the right, of the given lengths."""
        return self.backbone.encode(histories, lengths, vectors)

    def score(self, states: Tensor, vectors: Tensor) -> Tensor:
        """(batch, items) scores of the whole catalogue."""
        return states @ vectors[1:].T


class ModelScorer:
    """A trained model behind the judge's interface: item vectors are made once, not once a batch."""

    def __init__(self, model: SequentialRecommender, device: torch.device) -> None:
        self.model = model.eval()
        self.device = device
        self.max_history: int | None = model.backbone.max_length
        with torch.no_grad():
            self.vectors = model.items()

    @torch.no_grad()
    def __call__(self, histories: np.ndarray, lengths: np.ndarray) -> Tensor:
        """(batch, items) scores for histories (batch, length) padded on the right."""
        states = self.model.encode(
            torch.from_numpy(histories).long().to(self.device), torch.from_numpy(lengths).to(self.device), self.vectors
        )
        return self.model.score(states, self.vectors).float()


def read_teacher(path: str | Path, items: int, dim: int) -> Tensor:
    """The trained item vectors of an ID run, (items + 1, dim).

    Raises:
        ArtifactError: the run has none, or those of another catalogue, or of another width.
    """
    weight = read_tensors(path).get("items.weight")
    if weight is None:
        raise ArtifactError(f"{path}: has no trained item vectors to align with; expected a run of `items: ids`")
    if len(weight) != items + 1:
        raise ArtifactError(f"{path}: has vectors of {len(weight) - 1} items, the dataset has {items}")
    if weight.shape[1] != dim:
        raise ArtifactError(
            f"{path}: its item vectors have width {weight.shape[1]}, but the aligned backbone has dim {dim}; "
            "give both backbones the same dim"
        )
    return weight


def _read_table(
    run: Run, inputs: RunInputs, name: str, count: int, read: Callable[[str, int], Any] = read_item_table
) -> tuple[Tensor, Tensor]:
    if name not in inputs.tables:
        raise ValueError(f"system {run.system!r} reads the item table {name!r}, but no file was given")
    vectors, present = read(inputs.tables[name], count)
    return torch.from_numpy(vectors), torch.from_numpy(present)


def build_items(run: Run, inputs: RunInputs, count: int, dim: int) -> ItemEncoder:
    """The item encoder of a run, (count + 1, dim)."""
    assert isinstance(run.method, BackboneSystem)
    items = run.method.items
    encoder = _load(ITEM_ENCODERS[items.kind])
    built: ItemEncoder
    if isinstance(items, TableItems):
        vectors, present = _read_table(run, inputs, items.table, count)
        aligned = read_teacher(inputs.teacher, count, dim) if items.align is not None and inputs.teacher else None
        built = encoder(items, vectors, present, dim, aligned)
    elif isinstance(items, SemanticIdItems):
        if inputs.codes is None:
            raise ValueError(
                f"system {run.system!r} reads the semantic IDs {items.semantic_ids!r}, but no file was given"
            )
        beside = _read_table(run, inputs, items.table, count) if items.table else None
        built = encoder(items, read_codes(inputs.codes, count), read_codebooks(inputs.codes), dim, beside)
    elif isinstance(items, DualViewItems):
        coarse = {shown: _read_table(run, inputs, table, count) for shown, table in items.coarse.items()}
        fine = _read_table(run, inputs, items.fine, count, read_item_sequences) if items.fine else None
        built = encoder(items, coarse, fine, dim)
    else:
        built = encoder(count, dim)
    return built


def build_model(run: Run, popularity: np.ndarray, inputs: RunInputs) -> SequentialRecommender:
    """The untrained model of a run under a backbone; the caller has seeded torch.

    Args:
        run: the resolved run.
        popularity: (items + 1,) training interactions an item.
        inputs: the files that it reads; the teacher of an aligned system is not needed to judge it.
    """
    assert run.backbone is not None
    items = build_items(run, inputs, len(popularity) - 1, run.backbone.dim)
    loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
    return SequentialRecommender(items, build_backbone(run.backbone, getattr(run.method, "items", None)), loss)
