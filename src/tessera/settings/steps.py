"""Settings of training for a fixed number of steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from tessera.settings.base import Settings


class Steps(Settings):
    """Training for a fixed number of steps, without validation."""

    steps: int = Field(2000, ge=0)
    """Optimisation steps; 0 trains nothing: what the start alone is worth."""
    batch: int = Field(64, ge=2)
    """Items a step, over all processes."""
    learning_rate: float = Field(2.0e-4, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the rate falls to zero after the warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay on matrices."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """How slowly AdamW forgets squared gradients."""
    gradient_clip: float | None = Field(1.0, gt=0)
    """Largest gradient norm; null does not clip."""
    seed: int = Field(1, ge=0)
    """Seed of initial weights, batches, dropout and noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train: auto takes a GPU when there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products (autocast); trained weights stay in float32."""
    processes: int = Field(1, ge=1)
    """Processes (one a GPU) that share every step."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Least time between two checkpoints of the trainer's state; 0 writes one after every step."""

    def problems(self, config: Any) -> Iterator[tuple[str, str]]:
        """Processes get equal shares of a batch."""
        if self.batch % self.processes:
            yield "batch", f"{self.batch} does not divide among {self.processes} processes"
