"""Settings of item tables that language models make: plain text, SCFT (LLMEmb), LRCL and CRRL (ReaEmb)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import PresetSettings, Settings
from tessera.settings.language import MAX_PIXELS, ReadText, Steps


class Finish(Settings):
    """How pooled states become the rows of a table."""

    pca: int | None = Field(None, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps the vectors as they are."""
    whiten: float = Field(0.5, ge=0, le=1)
    """Divide every component by its standard deviation to this power: 1 makes all equally strong, 0 leaves them as they
    are, as published. What tells items apart is often in weak components, which an adapter learns slowly."""
    l2: bool = False
    """Scale every row to length one."""
    shuffle: int | None = Field(None, ge=0)
    """A control: deal the rows out anew among the items that have one, by this seed; null keeps them where they are."""


class TextTable(ReadText, Finish):
    """Pooled states of a model that nothing was trained on."""

    recipe: Literal["text"] = "text"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over the tokens of the text, or the last one."""
    layer: int = -1
    """Which states: -1 the last layer's, after its norm; 0 the token embeddings."""
    instruction: str | None = None
    """Told before the text, e.g. for instruct encoders; null tells none."""
    only_captions: bool = False
    """Read the captions alone, without the item's own text."""

    @model_validator(mode="after")
    def _reads_something(self) -> TextTable:
        if self.only_captions and not self.captions:
            raise ValueError("only_captions: names no captions to read")
        return self


class AttributesTable(ReadText, Finish):
    """A vector an attribute instead of one an item: the fine view of DMESR."""

    recipe: Literal["attributes"] = "attributes"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over the tokens of an attribute, or the last one."""
    most: int = Field(16, ge=1)
    """Rows of an item: the first so many are kept."""


class HiddenTable(ReadText, Finish):
    """Pooled states of a model that is asked to describe an item, before it answers: DMESR without generated text."""

    recipe: Literal["hidden"] = "hidden"
    source: Literal["image", "text", "both"] = "image"
    """What the model is shown: the picture, the text, or both. Items that lack it have no row."""
    instruction: str | None = None
    """What it is asked; null takes the instruction of the source."""
    pooling: Literal["mean", "last"] = "mean"
    """Mean over all tokens, pieces of the picture included, or the last one, where the answer would begin."""
    batch: int = Field(64, ge=1)
    """Items read at once, of like length."""
    max_pixels: int = Field(MAX_PIXELS, ge=1024)
    """Larger pictures are made smaller: memory and tokens go with pixels."""

    @model_validator(mode="after")
    def _plain(self) -> HiddenTable:
        if self.captions or self.states != "last":
            raise ValueError("reads an item as the model is asked about it: captions and states cannot be given")
        return self


class LoRA(Settings):
    """Low-rank adapters on every projection of attention and feed-forward layers (Hu et al., ICLR 2022)."""

    rank: int = Field(8, ge=1)
    """Rank of the update."""
    alpha: int = Field(32, ge=1)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout before the down projection."""


class SoftContrastive(Settings):
    """The contrastive loss of SCFT and LRCL: cosines with InfoNCE, or the soft targets of the published code.

    Soft targets start from how alike the model finds the items: where it finds all alike, as a small model does, they
    say that nothing is to be told apart, and nothing is learned.
    """

    temperature: float = Field(0.1, gt=0)
    """Initial temperature; it is learned."""
    normalize: bool = True
    """Cosines, or dot products of the states as they are, as published."""
    targets: Literal["attached", "detached", "identity"] = "identity"
    """InfoNCE: only the item itself is right (identity); or soft targets, with gradient, as published, or without."""
    target_temperature: Literal["divide", "multiply"] = "divide"
    """Soft targets: the temperature divides, as in ReaEmb's code, or multiplies, as in LLMEmb's."""


class ContrastiveTable(PresetSettings, ReadText, Finish):
    """What SCFT and LRCL share: two views of an item with attributes left out, brought together."""

    drop: float = Field(0.4, ge=0, lt=1)
    """Share of the attributes that a view leaves out."""
    views: Literal["fresh", "static"] = "fresh"
    """New views at every step, or one pair an item for the whole training (as published)."""
    lora: LoRA = Field(default_factory=LoRA)
    """What is trained in the language model."""
    recompute: bool = False
    """Keep the states of `batch_tokens` tokens at a time and compute the others again for the gradient: large models in
    little memory, at a third more time, the same numbers."""
    pca: int | None = Field(512, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps the vectors as they are."""


class SCFTTable(ContrastiveTable):
    """Supervised contrastive fine-tuning of LLMEmb (AAAI 2025)."""

    OFFICIAL: ClassVar[dict[str, Any]] = {
        "views": "static",
        "whiten": 0.0,
        "loss": {"temperature": 3.0, "target_temperature": "multiply", "normalize": False, "targets": "attached"},
    }
    recipe: Literal["scft"] = "scft"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over all tokens, or the last one."""
    pca: int | None = Field(1536, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps the vectors as they are."""
    loss: SoftContrastive = Field(default_factory=SoftContrastive)
    """The contrastive loss."""
    training: Steps = Field(default_factory=lambda: Steps(steps=4000, batch=256))
    """The training loop."""


class LRCLTable(ContrastiveTable):
    """Latent reasoning by contrastive learning: stage I of ReaEmb (2026)."""

    OFFICIAL: ClassVar[dict[str, Any]] = {
        "views": "static", "rope": "mixed", "positions": "padded", "two_pass": True, "prompts": "by_stage",
        "whiten": 0.0, "loss": {"temperature": 1.0, "normalize": False, "targets": "attached"},
    }  # fmt: skip
    recipe: Literal["lrcl"] = "lrcl"
    pooling: Literal["mean", "last", "balanced"] = "mean"
    """Mean over all tokens, as published (the thought is one of a hundred); the last token; or balanced: half the mean
    of the text, half that of thoughts and end token."""
    thoughts: int = Field(1, ge=0)
    """Latent thought tokens, made one after the other; 0 leaves reasoning out."""
    last_tokens: int | None = Field(None, ge=1)
    """The thought looks at so many tokens at the end of the text; null at all of them."""
    rope: Literal["rotate_half", "mixed"] = "rotate_half"
    """Rotary positions in the reasoning attention: the proper ones, or the published mixture of two conventions."""
    positions: Literal["true", "padded"] = "true"
    """Positions count tokens, or padding too, as published."""
    two_pass: bool = False
    """Run the language model twice, as published, instead of once with its cache: other LoRA dropout in each pass."""
    through_first_pass: bool = False
    """Let gradients flow through the making of the thought (the paper stops them)."""
    prompts: Literal["one", "by_stage"] = "one"
    """One prompt for all stages, or a format of its own for each, as published."""
    loss: SoftContrastive = Field(default_factory=SoftContrastive)
    """The contrastive loss."""
    training: Steps = Field(default_factory=lambda: Steps(steps=2000, batch=512))
    """The training loop."""


class CRRLTable(PresetSettings, Finish):
    """Collaborative-reward reinforcement learning: stage II of ReaEmb; only the reasoning attention learns."""

    OFFICIAL: ClassVar[dict[str, Any]] = {
        "cooccurrence": "all", "policy": "token", "advantage": "batch", "log_probability": "unshifted",
        "reference": "live", "prompts": "by_stage", "noise_free": "rollout", "lonely_items": "keep",
        "noise_scale": "absolute", "similarity": "dot", "whiten": 0.0,
    }  # fmt: skip
    recipe: Literal["crrl"] = "crrl"
    start: str | None = None
    """The `lrcl` table under `tables` whose model goes on learning; null starts from `model`, without stage I."""
    model: str | None = None
    """Name under `models`, where there is no `start`."""
    captions: list[str] = Field(default_factory=list)
    """Names under `captions`, where there is no `start`."""
    pca: int | None = Field(512, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps the vectors as they are."""
    objective: Literal["policy", "contrastive"] = "policy"
    """Policy gradient, or the control: a supervised contrastive loss on the same pairs."""
    policy: Literal["gaussian", "token"] = "gaussian"
    """What is made likelier: the thought under a Gaussian, or the tokens after it, as published."""
    group: int = Field(8, ge=2)
    """Rollouts of an item."""
    noise_std: float = Field(0.1, gt=0)
    """Standard deviation of the thought's noise."""
    noise_scale: Literal["relative", "absolute"] = "relative"
    """`noise_std` is relative to the root mean square of the thoughts at the start, or absolute, as published."""
    noise_free: Literal["baseline", "rollout"] = "baseline"
    """The first rollout has no noise: it is left out of the gradient, or counts like the others, as published."""
    candidates: int = Field(10, ge=2)
    """Items that a rollout is ranked among, positives included."""
    positives: int = Field(1, ge=1)
    """The most co-occurring items of an item that count as right."""
    cooccurrence: Literal["train", "all"] = "train"
    """Count pairs in training histories, or in all, held-out interactions included (published, and a leak)."""
    lonely_items: Literal["skip", "keep"] = "skip"
    """Items that co-occur with none: left out, or rewarded for a random one, as published."""
    negatives: Literal["fixed", "fresh"] = "fixed"
    """Negatives drawn once, as published, or at every step."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """How a rollout is compared with candidates; dot as published."""
    reward: Literal["rank", "softmax"] = "rank"
    """Published reward of the positives' ranks, or their continuous share of a softmax."""
    advantage: Literal["group", "batch"] = "group"
    """Rewards relative to the item's other rollouts, or to the whole batch, as published."""
    clip_low: float = Field(0.2, gt=0)
    """The ratio of policies is clipped at 1 - clip_low."""
    clip_high: float = Field(0.28, gt=0)
    """... and at 1 + clip_high."""
    kl: float = Field(0.0, ge=0)
    """Weight of the divergence from the reference policy."""
    reference: Literal["start", "live"] = "start"
    """Reference of the divergence: the attention at the start, or the live one, as published (then it is 0 at the
    first of the `iterations`, and the distance to the policy that rolled out at the others)."""
    log_probability: Literal["shifted", "unshifted"] = "shifted"
    """Token policy: likelihood of the next token, or of the same, as published."""
    iterations: int = Field(2, ge=1)
    """Optimisation steps on each batch of rollouts."""
    prompts: Literal["one", "by_stage"] = "one"
    """One prompt for all stages, or a format of its own, as published."""
    cache_gib: float = Field(4.0, ge=0)
    """Memory for the constants of all items (states and keys of their texts); beyond it, made batch by batch."""
    training: Steps = Field(
        default_factory=lambda: Steps(steps=2000, batch=32, learning_rate=1.0e-4, warmup_steps=200, schedule="cosine")
    )
    """The training loop; a step is a batch of rollouts of so many items and all iterations on it."""

    @model_validator(mode="after")
    def _fits(self) -> CRRLTable:
        if (self.start is None) == (self.model is None):
            raise ValueError("needs either 'start', an lrcl table, or 'model'")
        if self.start is not None and self.captions:
            raise ValueError("'captions' are those of 'start'; name them there")
        if self.positives >= self.candidates:
            raise ValueError(f"positives ({self.positives}) must be fewer than candidates ({self.candidates})")
        return self


TRAINED_TABLES = (SCFTTable, LRCLTable, CRRLTable)
