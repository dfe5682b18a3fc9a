"""Settings of semantic IDs: which item tables become codes, by which quantiser, and how collisions are resolved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, model_validator

from tessera.settings.base import PresetSettings, Settings, Width
from tessera.settings.language import Steps

_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_ONE_OR_MORE = WithJsonSchema({"anyOf": [_NAMES, {"type": "string"}]})

Conflicts = Literal["none", "extra_level", "nearest", "sinkhorn"]


class Codes(Settings):
    """What every quantiser may say."""

    tables: Annotated[list[str], _ONE_OR_MORE] = Field(min_length=1)
    """Names under `tables`; one name may stand alone. Several are laid side by side, each scaled to the same size."""
    levels: int = Field(3, ge=1, le=1000)
    """Codes an item: residual levels, or subspaces of product quantisation."""
    codes: int | list[int] = 256
    """Codes to choose from at a level; a list says it for every level."""
    conflicts: Conflicts = "nearest"
    """Items with the same codes: left so (none), told apart by one more code (extra_level), or moved to another code
    of the last level: the cheapest within their prefix (nearest), or by optimal transport (sinkhorn, LC-Rec)."""
    seed: int = Field(1, ge=0)
    """Seed of the first codebooks."""

    @model_validator(mode="before")
    @classmethod
    def _one_table(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("tables"), str):
            return {**data, "tables": [data["tables"]]}
        return data

    @property
    def sizes(self) -> list[int]:
        """Codes to choose from, a level each."""
        return [self.codes] * self.levels if isinstance(self.codes, int) else list(self.codes)


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
    """Where codebooks start: k-means of the residuals of all items, level after level, or random numbers."""
    revive_after: int = Field(100, ge=0)
    """A code that nothing chose for so many steps moves onto a random residual; 0 leaves it dead."""
    training: QuantizerSteps = Field(default_factory=QuantizerSteps)
    """The training loop."""


class RQVAE(LearnedCodes):
    """Residual-quantised autoencoder (Lee et al., CVPR 2022; TIGER, NeurIPS 2023)."""

    quantizer: Literal["rq_vae"] = "rq_vae"


class MMRQVAE(LearnedCodes, PresetSettings):
    """Multimodal RQ-VAE of MME-SID (CIKM 2025): codes of their own for every table, aligned with the first table's."""

    OFFICIAL: ClassVar[dict[str, Any]] = {
        "first_weights": "random", "commitment": 0.01, "residual_gradient": "straight_through",
        "mse": 0.0, "align": "mmd",
    }  # fmt: skip
    quantizer: Literal["mm_rq_vae"] = "mm_rq_vae"
    conflicts: Conflicts = "none"
    """Items with the same codes: see the other quantisers; codes that are inputs alone may collide."""
    mmd: float = Field(1.0, ge=0)
    """Weight of the reconstruction by maximum mean discrepancy, which compares clouds of vectors and not pairs."""
    mse: float = Field(1.0, ge=0)
    """Weight of the reconstruction by squared errors, item by item; the paper has none."""
    rec: float = Field(3.0, ge=0)
    """Weight of both reconstructions together."""
    align: Literal["infonce", "mmd", "none"] = "infonce"
    """How quantised vectors of the first table are drawn to those of the others: item by item (the paper), as clouds
    (its code), or not."""
    align_weight: float = Field(0.01, ge=0)
    """Weight of the alignment."""
    align_temperature: float = Field(0.1, gt=0)
    """Temperature of InfoNCE."""


class RQKMeans(Codes):
    """Residual k-means: no encoder, no gradient (faiss where it is installed, for large catalogues)."""

    quantizer: Literal["rq_kmeans"] = "rq_kmeans"
    iterations: int = Field(50, ge=1)
    """Most iterations of k-means a level."""
    engine: Literal["torch", "faiss"] = "torch"
    """Who runs k-means: our own, or faiss (an extra)."""
    normalize_residuals: bool = False
    """Scale residuals to length one before each level, as GRID does."""


class BalancedRQKMeans(Codes):
    """Residual k-means whose clusters hold like many items: a bound on the largest, kept by assignment."""

    quantizer: Literal["balanced_rq_kmeans"] = "balanced_rq_kmeans"
    iterations: int = Field(20, ge=1)
    """Most iterations a level."""
    slack: float = Field(1.0, ge=1)
    """Most items of a cluster, as a multiple of items / codes."""


class ProductQuantization(Codes):
    """Product quantisation: the vector in as many pieces as levels, k-means in each; codes have no order."""

    quantizer: Literal["pq"] = "pq"
    iterations: int = Field(50, ge=1)
    """Most iterations of k-means a piece."""


class GivenCodes(Settings):
    """Codes that exist already: JSON of raw id to a list of codes, as `<a_12>` or numbers (LETTER, MiniOneRec)."""

    quantizer: Literal["given"] = "given"
    path: str
    """The file, looked up like data files."""
    offset: int = 0
    """Added to the raw ids of the file, where it counts from another number than the dataset."""
    conflicts: Literal["none", "extra_level"] = "none"
    """Items with the same codes: left so, or told apart by one more code."""


SemanticIds = Annotated[
    RQVAE | MMRQVAE | RQKMeans | BalancedRQKMeans | ProductQuantization | GivenCodes, Field(discriminator="quantizer")
]
