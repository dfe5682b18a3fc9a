"""Settings of ReaEmb's stage II."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from tessera.settings.base import PresetSettings, each_once
from tessera.settings.language import ByModel
from tessera.settings.recipes.base import Finish, RecipeSettings
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.references import DECODER, CaptionsName, ModelName, ReasoningTableName
from tessera.settings.training import Steps

if TYPE_CHECKING:
    from tessera.settings.config import Config


class CRRLTable(PresetSettings, Finish, RecipeSettings):
    """Collaborative-reward reinforcement learning: stage II of ReaEmb; only the reasoning attention learns, unless
    `learns` says otherwise."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.crrl:CRRLRecipe"
    PUBLISHED: ClassVar[str] = "tessera.embedding.crrl_published:PublishedCRRL"
    HABITS: ClassVar[tuple[str, ...]] = (
        "cooccurrence", "policy", "advantage", "log_probability", "reference", "prompts", "noise_free", "noise_scale",
        "similarity",
    )  # fmt: skip
    OF_DECODERS: ClassVar[tuple[str, ...]] = ("policy", "prompts")
    """Those of the habits that an encoder cannot have."""
    OF_POLICY: ClassVar[tuple[str, ...]] = (
        "policy", "group", "noise_std", "noise_scale", "noise_free", "reward", "advantage", "clip_low", "clip_high",
        "log_probability",
    )  # fmt: skip
    """Keys of rollouts, and of what is learned from them."""
    LEARNS: ClassVar[bool] = True
    TRAINS: ClassVar[bool] = True
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "cooccurrence": "all", "policy": "token", "advantage": "batch", "log_probability": "unshifted",
        "reference": "live", "prompts": "by_stage", "noise_free": "rollout", "lonely_items": "keep",
        "noise_scale": "absolute", "similarity": "dot", "whiten": 0.0,
    }  # fmt: skip
    NO_THOUGHTS: ClassVar[str] = (
        "so there is nothing to make likelier; adapters can learn without: learns: adapters, with policy: vector or "
        "objective: contrastive"
    )
    NO_END: ClassVar[str] = (
        "and prompts: by_stage embeds items without an end token, so that nothing would stand behind a text; take "
        "prompts: one"
    )
    recipe: Literal["crrl"] = "crrl"
    start: ReasoningTableName | None = None
    """The `lrcl` table under `tables` whose model goes on learning; null starts from `model`, without stage I."""
    model: ModelName | None = None
    """Name under `models`, where there is no `start`."""
    captions: Annotated[list[CaptionsName], AfterValidator(each_once)] = Field(default_factory=list)
    """Names under `captions`, where there is no `start`."""
    pca: int | None = Field(512, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps all."""
    objective: Literal["policy", "contrastive"] = "policy"
    """Policy gradient, or the control: a supervised contrastive loss on the same pairs, which has no rollouts: what is
    said of policy, noise, reward, advantage and clipping is then not read."""
    temperature: float | None = Field(None, gt=0)
    """Contrastive objective: what similarities are divided by; null is 0.1 where adapters learn, and their deviation
    among an item's candidates where the thought alone does: adapters would draw all vectors together under it."""
    learns: Literal["thought", "adapters", "both"] = "thought"
    """The reasoning attention alone, on a frozen model, as published; the model's adapters, which go on from stage I;
    or both. Where adapters learn, gradients run through both passes, without dropout."""
    policy: Literal["gaussian", "vector", "token"] = "gaussian"
    """What is made likelier: the thought under a Gaussian, the item's vector under one, or, as published, the tokens
    after the thought."""
    group: int = Field(8, ge=2)
    """Rollouts of an item."""
    noise_std: float = Field(0.1, gt=0)
    """Standard deviation of the noise on the thought, or on the vector with `policy: vector`."""
    noise_scale: Literal["relative", "absolute"] = "relative"
    """`noise_std` is relative to the root mean square of what it is added to, over all items at the start; or absolute,
    as published."""
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
    negatives: Literal["fixed", "fresh", "hard"] = "fixed"
    """Negatives drawn once, as published, or at every step; or hard: of the items that it never meets those whose
    vectors are most like its own at the start."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """How a rollout is compared with candidates; dot as published."""
    reward: Literal["rank", "ndcg", "softmax"] = "rank"
    """Published reward of the positives' ranks; their NDCG, by their shares; or their continuous share of a softmax."""
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
    """Memory of the model's device for the constants of all items (states, keys and values of their texts); where they
    take more, they are made batch by batch. Not read where adapters learn."""
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
        if self.policy == "token" and self.learns != "thought":
            raise ValueError(
                f"learns: {self.learns} goes with policy gaussian or vector; under policy token the model is frozen"
            )
        if self.temperature is not None and self.objective == "policy":
            raise ValueError("temperature: is of objective: contrastive, and the objective is policy")
        if self.kl and self.objective == "contrastive":
            raise ValueError("kl: is of objective: policy; the contrastive one has no policy to diverge")
        if self.positives >= self.candidates:
            raise ValueError(f"positives ({self.positives}) must be fewer than candidates ({self.candidates})")
        return self

    @property
    def needs_thoughts(self) -> bool:
        """Whether thoughts are what learns, or what is made likelier."""
        return self.learns == "thought" or (self.objective == "policy" and self.policy != "vector")

    @property
    def supervised_temperature(self) -> float | None:
        """Of the contrastive objective; None standardizes similarities."""
        return self.temperature or (None if self.learns == "thought" else 0.1)

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a policy that is not learned, tokens that are not made likelier, a divergence that weighs nothing,
        and constants that are none.
        """
        yield from super().unread()
        if self.objective == "contrastive":
            yield "is of objective: policy, and the objective is contrastive", self.OF_POLICY
        elif self.policy != "token":
            yield f"is of policy token, and {self.policy} asks for no token's likelihood", ("log_probability",)
        if not self.kl:
            yield "is what the policy diverges from, and kl is 0", ("reference",)
        if self.learns != "thought":
            yield f"is of constants of a frozen model, and with learns: {self.learns} it is none", ("cache_gib",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """A start without thoughts, where thoughts are needed; published habits that an encoder cannot have."""
        yield from super().problems(config)
        start = config.tables.get(self.start or "")
        model = config.models.get(self.model or (start.model if isinstance(start, LRCLTable) else ""))
        if model is not None and DECODER not in model.offers():
            for key in self.OF_DECODERS:
                if key in self.habits():
                    yield key, f"{getattr(self, key)!r} is a published habit of decoders, and its model is an encoder"
        if isinstance(start, LRCLTable) and start.thoughts == 0 and self.needs_thoughts:
            yield "start", f"{self.start!r} has no thoughts (thoughts: 0), {self.NO_THOUGHTS}"
        elif isinstance(start, LRCLTable) and start.thoughts == 0 and self.prompts == "by_stage":
            yield "start", f"{self.start!r} has no thoughts (thoughts: 0), {self.NO_END}"

    @property
    def takes_new(self) -> bool:
        """What it goes on from reads texts."""
        return True

    def reader(self, config: Config) -> ByModel | None:
        """What the table reads that it starts from; where it starts from none, that of a table like it."""
        if self.start is not None:
            return config.tables[self.start].reader(config)
        return LRCLTable(model=self.model or "", captions=self.captions, prompts=self.prompts)

    def remarks(self) -> list[str]:
        """Pairs of held-out interactions leak."""
        return ["was trained with held-out interactions"] if self.cooccurrence == "all" else []
