"""Settings of what is trained on histories: backbones, item encoders, losses and the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import PresetSettings, Settings, Width

# ---------------------------------------------------------------- backbones


class BackboneSettings(Settings):
    """What every backbone may say besides its own shape."""

    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of `training` that differ for this backbone."""


class SASRecSettings(PresetSettings, BackboneSettings):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), pre-norm blocks."""

    OFFICIAL: ClassVar[dict[str, Any]] = {"causal": False}

    kind: Literal["sasrec"] = "sasrec"
    dim: Width = 64
    """Width of item vectors and hidden states."""
    layers: int = Field(2, ge=1, le=1000)
    """Number of attention blocks."""
    heads: int = Field(2, ge=1, le=2**16)
    """Attention heads a block; `dim` is a multiple of it."""
    inner_dim: Width = 256
    """Width of the feed-forward layer."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings and on the outputs of attention and feed-forward layers."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once; longer ones are trained in windows and scored on their end."""
    causal: bool = True
    """A position sees those before it; false lets it see its own target in training, as LLMEmb's and ReaEmb's code."""


class GRU4RecSettings(PresetSettings, BackboneSettings):
    """Recurrent recommendation (Hidasi et al., ICLR 2016), with the loss chosen freely."""

    OFFICIAL: ClassVar[dict[str, Any]] = {"targets": "last"}

    kind: Literal["gru4rec"] = "gru4rec"
    dim: Width = 64
    """Width of item vectors; the state is projected back to it."""
    hidden_dim: Width = 128
    """Width of the recurrent state."""
    layers: int = Field(1, ge=1, le=1000)
    """Number of recurrent layers."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings and on the output state."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once."""
    targets: Literal["all", "last"] = "all"
    """Predict every item of a training window, or the last alone, as LLMEmb's and ReaEmb's code."""


class BERT4RecSettings(BackboneSettings):
    """Bidirectional encoder trained on a Cloze task (Sun et al., CIKM 2019)."""

    kind: Literal["bert4rec"] = "bert4rec"
    dim: Width = 64
    """Width of item vectors and hidden states."""
    layers: int = Field(2, ge=1, le=1000)
    """Number of attention blocks."""
    heads: int = Field(2, ge=1, le=2**16)
    """Attention heads a block; `dim` is a multiple of it."""
    inner_dim: Width = 256
    """Width of the feed-forward layer."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings and on the outputs of attention and feed-forward layers."""
    max_length: int = Field(50, ge=2)
    """Longest history read at once, the mask at its end included."""
    mask_probability: float = Field(0.3, gt=0, lt=1)
    """Share of the items of a history that the Cloze task hides."""
    last_only_probability: float = Field(0.2, ge=0, le=1)
    """Share of histories in which the last item alone is hidden, as it is when scoring."""
    distance_bias: bool = True
    """Let attention favour near items from the start (the paper has none, and takes far longer to train)."""


Backbone = Annotated[SASRecSettings | GRU4RecSettings | BERT4RecSettings, Field(discriminator="kind")]


class PopularSettings(Settings):
    """Every user gets the items with the most training interactions."""

    recommender: Literal["popular"] = "popular"


class ItemKNNSettings(Settings):
    """Cosine of train co-occurrence between the history's items and the candidate."""

    recommender: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1)
    """Neighbours kept an item."""
    shrinkage: float = Field(10.0, ge=0)
    """Added to the denominator: how much evidence a similarity needs."""
    decay: float = Field(0.9, gt=0, le=1)
    """Weight of an item of the history relative to the one after it; 1 forgets the order."""
    max_history: int = Field(500, ge=1)
    """Only the last items of a history count pairs: bounds the cost of very active users."""


class MarkovSettings(Settings):
    """First-order Markov chain over train transitions, backed off to popularity."""

    recommender: Literal["markov"] = "markov"
    smoothing: float = Field(5.0, ge=0)
    """Pseudo-count of the popularity prior in each row."""


# ---------------------------------------------------------------- item encoders


class IdItems(Settings):
    """A trainable vector an item."""

    kind: Literal["ids"] = "ids"


class Alignment(Settings):
    """Draws adapted item vectors towards those of a trained ID run: recommendation adaptation training of LLMEmb."""

    system: str = "id"
    """The system whose item vectors are aligned to; it has `items: ids` and is trained first, under the same seed."""
    backbone: str = "sasrec"
    """The backbone under which it was trained (LLMEmb aligns every backbone to SASRec), of the same `dim`."""
    weight: float = Field(0.01, gt=0)
    """Weight of the alignment beside the loss of the recommender."""
    temperature: float = Field(2.0, gt=0)
    """Temperature of the contrastive loss; fixed."""
    deduplicate: bool = True
    """An item that is a target several times counts once; otherwise it is a negative of itself, as published."""
    normalize: bool = False
    """Cosines instead of dot products."""
    target_temperature: Literal["divide", "multiply"] = "divide"
    """The targets' temperature divides, or multiplies, as in the published code."""


class TableItems(PresetSettings):
    """A frozen item table behind a trainable adapter."""

    OFFICIAL: ClassVar[dict[str, Any]] = {"activation": "none", "standardize": False, "shift_last_item": True}
    kind: Literal["table"] = "table"
    table: str
    """Name under `tables`."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths of the adapter; [] is one linear map."""
    activation: Literal["gelu", "none"] = "gelu"
    """Between the layers of the adapter; none as in LLMEmb's and ReaEmb's code, which makes it one linear map."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the adapter."""
    standardize: bool = True
    """Centre the table and scale it to unit mean square before the adapter."""
    id_residual: bool = False
    """Add a trainable ID vector to the adapted one."""
    shift_last_item: bool = False
    """Zero the last item's vector, as an off-by-one in the published code does."""
    align: Alignment | None = None
    """Also align the adapted vectors with those of a trained ID run (LLMEmb); null does not."""

    @model_validator(mode="before")
    @classmethod
    def _official_alignment(cls, data: Any) -> Any:
        """The published habits of the alignment, where there is one: the preset does not switch it on."""
        if isinstance(data, Mapping) and data.get("preset") == "official" and isinstance(data.get("align"), Mapping):
            return {**data, "align": {"deduplicate": False, "target_temperature": "multiply", **data["align"]}}
        return data


class SemanticIdItems(Settings):
    """Items as the vectors of their codes, level by level, with or without the raw table beside them."""

    kind: Literal["semantic_ids"] = "semantic_ids"
    semantic_ids: str
    """Name under `semantic_ids`."""
    combine: Literal["sum", "concat"] = "sum"
    """Add the vectors of the levels, or lay them side by side, before the adapter."""
    start: Literal["codebooks", "random"] = "codebooks"
    """Code vectors start as the quantiser's codebooks, or at random."""
    code_dim: Width = 64
    """Width of code vectors where no codebook gives it."""
    table: str | None = None
    """Name under `tables`: a frozen table read beside the codes."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths between code vectors (and table) and item vectors; [] is one linear map."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the adapter."""
    id_residual: bool = False
    """Add a trainable ID vector."""


class ViewAlignment(Settings):
    """Contrastive alignment of what a multimodal model says of an item's picture and of its text (DMESR)."""

    weight: float = Field(0.1, gt=0)
    """Weight beside the loss of the recommender."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of the contrastive loss; fixed."""
    dim: Width = 64
    """Width of the space in which the two are compared."""
    anchor: bool = False
    """Also draw both towards what is said of picture and text together."""


class MissingViews(Settings):
    """An experiment: items lose their picture or their text at random, as if they had never had one."""

    image: float = Field(0.0, ge=0, le=1)
    """Share of the items that lose their picture, and with it all that was said of it."""
    text: float = Field(0.0, ge=0, le=1)
    """Share of the items that lose their text."""
    when: Literal["training", "test", "both"] = "both"
    """Lost while training, when the run is judged (validation included), or always."""
    seed: int = Field(0, ge=0)
    """Which items: those that lose something at one share also lose it at every higher one."""


class DualViewItems(Settings):
    """Two views of an item, fused by cross-attention: what a multimodal model says of it, and its text (DMESR)."""

    kind: Literal["dual_view"] = "dual_view"
    image: str | None = None
    """Name under `tables`: what a model says of the picture alone."""
    text: str | None = None
    """Name under `tables`: what a model says of the text alone."""
    both: str | None = None
    """Name under `tables`: what a model says of picture and text together."""
    fine: str | None = None
    """Name of a table of recipe `attributes`: the text itself, a vector an attribute."""
    alignment: ViewAlignment | None = Field(default_factory=ViewAlignment)
    """Contrastive alignment of `image` and `text`, where there are both; null leaves it out."""
    fusion: Literal["attention", "concat"] = "attention"
    """How a view reads the other: cross-attention, or the other's mean laid beside its own."""
    direction: Literal["both", "coarse", "fine"] = "both"
    """Which view reads the other: each (bidirectional), what the model says (coarse), or the text (fine)."""
    axis: Literal["item", "sequence"] = "item"
    """Views read each other within an item, or along the history (LLM-ESR), where a position sees none after it."""
    heads: int = Field(2, ge=1, le=2**16)
    """Heads of the cross-attention."""
    width: Width = 64
    """Width of the projected vectors that are fused."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths between a fused view and its part of the item vector; [] is one linear map."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the adapters."""
    combine: Literal["concat", "gated_sum"] = "concat"
    """Two views of half the width side by side, or two of full width in a learned mixture."""
    backbone: Literal["joint", "shared", "separate"] = "joint"
    """One backbone reads both views at once; the same one of half the width reads each (LLM-ESR); or one for each."""
    missing: MissingViews | None = None
    """Take pictures or texts away from some items; null takes none."""

    @property
    def coarse(self) -> dict[str, str]:
        """The tables of what a model says, by what it was shown."""
        named = {"image": self.image, "text": self.text, "both": self.both}
        return {shown: table for shown, table in named.items() if table is not None}

    @property
    def tables(self) -> list[str]:
        """All tables that are read, each once."""
        return list(dict.fromkeys([*self.coarse.values(), *([self.fine] if self.fine else [])]))

    @property
    def views(self) -> int:
        """How many views an item has: two, or one where the other has no table."""
        return bool(self.coarse) + bool(self.fine)

    @model_validator(mode="after")
    def _fits(self) -> DualViewItems:
        if not self.views:
            raise ValueError("needs a table: one of image, text, both and fine at least")
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        if self.views < 2 and (self.axis, self.combine, self.backbone) != ("item", "concat", "joint"):
            raise ValueError("axis, combine and backbone say what becomes of two views, but tables give only one")
        if self.combine == "gated_sum" and (self.axis, self.backbone) != ("item", "joint"):
            raise ValueError("combine: gated_sum makes one vector of the views: axis must be item, backbone joint")
        if self.axis == "sequence" and (self.backbone, self.fusion) != ("joint", "attention"):
            raise ValueError("axis: sequence needs backbone joint and fusion attention")
        if self.axis == "sequence" and self.direction != "both":
            raise ValueError(f"direction {self.direction} is for axis item; along the history both views read")
        if self.alignment is not None and self.alignment.anchor and self.both is None:
            raise ValueError("alignment.anchor draws image and text to both, which names no table")
        if self.missing is not None and self.missing.image and self.image is None and self.both is None:
            raise ValueError("missing.image takes pictures away, but neither image nor both names a table")
        return self


ItemEncoder = Annotated[IdItems | TableItems | SemanticIdItems | DualViewItems, Field(discriminator="kind")]

# ---------------------------------------------------------------- losses


class CrossEntropy(Settings):
    """Softmax cross-entropy over the whole catalogue, in chunks of targets (never targets x items in memory)."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class SampledSoftmax(Settings):
    """Softmax over the target and shared negatives, corrected by log Q (Bengio and Senecal 2008; Yi et al. 2019)."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    negatives: int = Field(1024, ge=1)
    """Negatives a step, shared by all its targets."""
    distribution: Literal["uniform", "popularity", "mixed"] = "mixed"
    """Where they are drawn from; mixed is half of each."""


class GBCE(Settings):
    """Generalised binary cross-entropy (gSASRec, Petrov and Macdonald, RecSys 2023, eq. 9-11)."""

    kind: Literal["gbce"] = "gbce"
    negatives: int = Field(256, ge=1)
    """Uniform negatives a target."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of the paper: 0 is plain BCE, 1 makes scores fully calibrated."""
    shared: bool = False
    """Share the negatives among the targets of a step (faster, more correlated)."""


class BCE(Settings):
    """Binary cross-entropy with uniform negatives, as in SASRec."""

    kind: Literal["bce"] = "bce"
    negatives: int = Field(1, ge=1)
    """Uniform negatives a target, never items of the same training window."""


class BPR(Settings):
    """Bayesian personalised ranking (Rendle et al., UAI 2009)."""

    kind: Literal["bpr"] = "bpr"
    negatives: int = Field(1, ge=1)
    """Uniform negatives a target, never items of the same training window."""


Loss = Annotated[CrossEntropy | SampledSoftmax | GBCE | BCE | BPR, Field(discriminator="kind")]

# ---------------------------------------------------------------- training


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
