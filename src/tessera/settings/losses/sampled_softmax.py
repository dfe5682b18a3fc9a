"""Sampled softmax."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.losses.base import LossSettings


class SampledSoftmax(LossSettings):
    """Softmax over the target and shared negatives, corrected by log Q (Bengio and Senecal 2008; Yi et al. 2019)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.objectives.losses.sampled_softmax:SampledSoftmaxLoss"
    kind: Literal["sampled_softmax"] = "sampled_softmax"
    negatives: int = Field(1024, ge=1)
    """Negatives a step, shared by all its targets."""
    distribution: Literal["uniform", "popularity", "mixed"] = "mixed"
    """Where they are drawn from; mixed is half of each."""
