"""Settings of SR-GNN."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import Width


class SRGNNSettings(BackboneSettings):
    """Session graph with gated propagation (SR-GNN; Wu et al., AAAI 2019)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.srgnn:SRGNN"
    FREE: ClassVar[frozenset[str]] = BackboneSettings.FREE | {"targets"}

    kind: Literal["srgnn"] = "srgnn"
    dim: Width = 64
    """Width of item vectors and hidden states."""
    steps: int = Field(1, ge=1, le=100)
    """Rounds in which items of the graph hear of their neighbours."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on item vectors and on the state."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once."""
    targets: Literal["all", "last"] = "all"
    """Predict every item of a training window, each from the graph of what stands before it, or the last alone: a graph
    for each item makes an epoch as many times dearer as windows are long, and gives as many more targets."""

    @property
    def causal_states(self) -> bool:
        """A state is that of a history as a whole; within its graph items look both ways."""
        return False
