"""What quantisers with an autoencoder share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from tessera.settings.base import Width
from tessera.settings.quantizers.base import Codes
from tessera.settings.training import Steps


class QuantizerSteps(Steps):
    """Training of a quantiser, in one process."""

    batch: int = Field(1024, ge=2)
    """Items a step; the whole catalogue where it has fewer."""
    learning_rate: float = Field(1.0e-3, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls to zero after the warm-up."""
    weight_decay: float = Field(1.0e-4, ge=0)
    """Decoupled weight decay on matrices."""
    processes: Literal[1] = 1
    """Always one."""


class LearnedCodes(Codes):
    """What quantisers with an encoder and a decoder share."""

    hidden: list[Width] = Field(default_factory=lambda: [512, 256, 128])
    """Widths between the table and the latent vector; the decoder mirrors them."""
    dim: Width = 32
    """Width of the latent vector and of the codes."""
    estimator: Literal["straight_through", "rotation", "gumbel"] = "straight_through"
    """How the gradient passes the choice of a code: straight through, rotated (Fifty et al., 2024), or that of a soft
    choice where codes are drawn at random while training (Gumbel-softmax)."""
    gumbel_temperature: float = Field(0.7, gt=0)
    """Temperature of the soft choice."""
    codebook: Literal["loss", "ema"] = "loss"
    """Codes follow the vectors by gradient, or by exponential moving averages."""
    ema_decay: float = Field(0.99, gt=0, lt=1)
    """How slowly the moving averages forget."""
    commitment: float = Field(0.25, ge=0)
    """Weight that keeps latent vectors near their codes."""
    residual_gradient: Literal["detach", "straight_through"] = "detach"
    """What a level subtracts: its code, or the straight-through output, which stops the commitment of later levels from
    reaching the encoder, as in MME-SID's code."""
    first_weights: Literal["principal", "random"] = "principal"
    """Where encoder and decoder start: at the table's principal components, which pairs of ReLUs carry through the
    hidden layers, or at random numbers (Xavier), as published."""
    start: Literal["kmeans", "random"] = "kmeans"
    """Where codebooks start: k-means of the residuals of all items, level after level (by `seed`), or random numbers
    (by `training.seed`)."""
    revive_after: int = Field(100, ge=0)
    """A code that nothing chose for so many steps moves onto a random residual; 0 leaves it dead."""
    training: QuantizerSteps = Field(default_factory=QuantizerSteps)
    """The training loop."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of choices that are not drawn, averages that are not kept, weights of 0, and a k-means that is none."""
        yield from super().unread()
        if self.estimator != "gumbel":
            yield f"is of estimator gumbel, and {self.estimator} draws no codes", ("gumbel_temperature",)
            if not self.commitment:
                yield "says how far commitments reach, and commitment is 0", ("residual_gradient",)
        if self.codebook != "ema":
            yield "is of codebook ema, and loss keeps no moving averages", ("ema_decay",)
        if self.start == "random":
            yield "is read with `start: kmeans` alone; random codebooks come from training.seed", ("seed",)
