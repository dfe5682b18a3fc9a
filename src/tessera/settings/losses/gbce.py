"""Generalised binary cross-entropy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.losses.base import LossSettings


class GBCE(LossSettings):
    """Generalised binary cross-entropy (gSASRec, Petrov and Macdonald, RecSys 2023, eq. 9-11)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.objectives.losses.gbce:GBCELoss"
    kind: Literal["gbce"] = "gbce"
    negatives: int = Field(256, ge=1)
    """Uniform negatives a target. Their losses are added, so the loss is `negatives` + 1 times the paper's mean: AdamW
    moves alike, but `gradient_clip` and the weights of losses beside it mean as much less."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of the paper: 0 is plain BCE, 1 makes scores fully calibrated."""
    shared: bool = False
    """Share the negatives among the targets of a step (faster, more correlated)."""
