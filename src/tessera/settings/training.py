"""Settings of training on histories, with early stopping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from tessera.settings.base import Settings, explain


class Training(Settings):
    """The training loop that all recommenders share."""

    epochs: int = Field(200, ge=1)
    """At most this many passes over the training targets."""
    patience: int = Field(10, ge=1)
    """Validations without a better NDCG@10 before stopping."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations."""
    validation_users: int | None = Field(None, ge=1)
    """Validate on a fixed random sample of users of this size; null takes all."""
    batch_tokens: int = Field(6400, ge=1)
    """Padded positions a step (128 histories of length 50)."""
    learning_rate: float = Field(1.0e-3, gt=0)
    """Peak learning rate of Adam."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW) on all but biases, norms and embeddings."""
    gradient_clip: float | None = Field(5.0, gt=0)
    """Largest gradient norm; null does not clip."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train: auto takes a GPU when there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products (autocast)."""
    processes: int = Field(1, ge=1)
    """Processes (one a GPU) that share every step, through accelerate."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Least time between two checkpoints of the trainer's state; 0 writes one after every epoch."""
    tensorboard: bool = False
    """Also write TensorBoard events, to `state/<run>/tensorboard`."""


def override_problems(training: Training, override: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with keys of `training` that differ for a system or a backbone, as (key, what)."""
    try:
        Training.model_validate({**training.model_dump(), **override})
    except ValidationError as error:
        for line in explain(error, override, "").splitlines():
            key, _, text = line.removeprefix(": ").partition(": ")
            yield f"training.{key}", text
