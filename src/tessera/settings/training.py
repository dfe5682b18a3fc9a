"""Settings of every training loop, from parts: the optimiser, the machine, the state, and when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from tessera.settings.base import ASIDE, Settings, explain


class OptimizerSettings(Settings):
    """How AdamW moves parameters."""

    learning_rate: float = Field(1.0e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls to zero after the warm-up, over the longest course that training may take."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW) on matrices of linear, recurrent and convolution layers."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """How slowly AdamW forgets squared gradients."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest gradient norm; null does not clip."""


class Hardware(Settings):
    """What is trained on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train: auto takes a GPU when there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products (autocast); trained weights stay in float32."""
    processes: int = Field(1, ge=1)
    """Processes (one a GPU) that share every step."""


Tracker = Literal["tensorboard", "mlflow", "trackio", "wandb"]


_BESIDE_CONSTRAINTS = ("trackio",)
"""It asks for another pillow (below 13) than constraints.txt pins."""


def missing_tracker(tracker: str) -> str:
    """What is to be done where the package of a tracker is not installed; its extra has its name."""
    pinned = "" if tracker in _BESIDE_CONSTRAINTS else " -c constraints.txt"
    return f"{tracker} is not installed; pip install -e '.[{tracker}]'{pinned}"


class LoopSettings(Settings):
    """What a loop leaves behind on its way. No result depends on it, so a change of it re-runs nothing."""

    RENAMED: ClassVar[dict[str, str]] = {"tensorboard": "trackers: [tensorboard]"}

    checkpoint_seconds: Annotated[float, ASIDE] = Field(60.0, ge=0)
    """Least time between two checkpoints of the trainer's state; 0 writes one after every epoch, or every step where
    training counts steps."""
    trackers: Annotated[list[Tracker], ASIDE] = Field(default_factory=list)
    """Programs that are told of the curve while it grows, each in files of its own below `tracking/`: tensorboard,
    mlflow, trackio or wandb, an extra each."""
    trackers_online: Annotated[bool, ASIDE] = False
    """Let them use the network, as their own variables say: `MLFLOW_TRACKING_URI`, the account of W&B, a Space of
    trackio. Otherwise nothing is sent."""


class Training(OptimizerSettings, Hardware, LoopSettings):
    """The training loop that all recommenders share: epochs, with early stopping on validation."""

    epochs: int = Field(200, ge=0)
    """At most this many passes over the training targets; 0 trains nothing: what the start alone is worth."""
    patience: int = Field(10, ge=1)
    """Validations without a better NDCG@10 before stopping."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations."""
    validation_users: int | None = Field(None, ge=1)
    """Validate on a fixed random sample of users of this size; null takes all."""
    batch_tokens: int = Field(6400, ge=1)
    """Most padded positions a step (128 histories of length 50). Where each row has one target (`samples: prefixes`,
    `targets: last`) it is their mean: those steps all have the same number of targets."""
    gradient_clip: float | None = Field(5.0, gt=0)
    """Largest gradient norm; null does not clip."""
    warm_start: str | None = None
    """A finished run to go on from, items matched by their raw ids: its folder, or one that `save` or `export` wrote;
    or a folder of runs (`.../runs`), or of datasets with runs, in which the run of the same name is taken. null begins
    anew; systems that count do so always."""


class Steps(OptimizerSettings, Hardware, LoopSettings):
    """Training for a fixed number of steps, without validation."""

    steps: int = Field(2000, ge=0)
    """Optimisation steps; 0 trains nothing: what the start alone is worth."""
    batch: int = Field(64, ge=2)
    """Items a step, over all processes."""
    learning_rate: float = Field(2.0e-4, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the rate falls to zero after the warm-up."""
    gradient_clip: float | None = Field(1.0, gt=0)
    """Largest gradient norm; null does not clip."""
    seed: int = Field(1, ge=0)
    """Seed of initial weights, batches, dropout and noise."""

    def problems(self, config: Any) -> Iterator[tuple[str, str]]:
        """Processes get equal shares of a batch."""
        if self.batch % self.processes:
            yield "batch", f"{self.batch} does not divide among {self.processes} processes"


def override_problems(training: Training, override: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with keys of `training` that differ for a system or a backbone, as (key, what)."""
    try:
        Training.model_validate({**training.model_dump(), **override})
    except ValidationError as error:
        for line in explain(error, override, "").splitlines():
            key, _, text = line.removeprefix(": ").partition(": ")
            yield f"training.{key}", text
