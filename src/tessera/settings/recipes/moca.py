"""Settings of MoCa: a causal model that learns to see both ways, and then to embed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import Settings
from tessera.settings.language import MAX_PIXELS, BuiltModel, ReadText, Sharded
from tessera.settings.lora import LoRA
from tessera.settings.recipes.base import Finish, RecipeSettings
from tessera.settings.references import VISION, DecoderName
from tessera.settings.training import OptimizerSettings, Steps

if TYPE_CHECKING:
    from tessera.settings.config import Config

OF_PICTURES = ("mask_picture", "picture_weight", "picture_targets")
"""Keys of the first phase that say how pictures are given back."""


class Continual(OptimizerSettings):
    """Continual pre-training, the first phase: what is hidden of items' texts and pictures is given back."""

    steps: int = Field(2000, ge=0)
    """Optimisation steps; 0 leaves the phase out."""
    budget: int = Field(12800, ge=1)
    """What the items of a step may cost together, over all processes: each as much as the longest of its bucket of like
    lengths. An item costs its tokens, four for every token of its picture, and two for the picture."""
    mask_text: float = Field(0.4, ge=0, lt=1)
    """Chance of every token that is not special to be hidden; 0 gives no text back."""
    mask_picture: float = Field(0.5, ge=0, lt=1)
    """Share of a picture's tokens whose patches become noise; 0 gives no picture back."""
    picture_weight: float = Field(0.1, ge=0)
    """Weight of giving pictures back, beside that of texts, which is 1."""
    picture_targets: Literal["pixels", "normalized"] = "pixels"
    """What is given back of a patch: its pixels as the model's processor has them, or these with mean 0 and variance 1
    within the patch, as masked autoencoders have them."""
    learning_rate: float = Field(2.0e-4, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the rate falls to zero after the warm-up."""
    gradient_clip: float | None = Field(5.0, gt=0)
    """Largest gradient norm; null does not clip."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of pictures that are not given back."""
        yield from super().unread()
        if not self.steps:
            keys = [key for key in type(self).model_fields if key != "steps"]
            yield "is of the first phase, which steps: 0 leaves out", keys
        elif not self.mask_picture:
            yield "is of pictures that are given back, and mask_picture: 0 gives none", OF_PICTURES[1:]
        elif not self.picture_weight:
            yield "is of pictures that are given back, whose picture_weight is 0", ("mask_picture", "picture_targets")


class PairTasks(Settings):
    """Which pairs the second phase brings together; every step has pairs of one kind alone."""

    views: float = Field(0.0, ge=0)
    """Weight in the draw of a step's kind: two views of an item. Alone they took from tables on the demo world."""
    together: float = Field(1.0, ge=0)
    """... an item and one that stands near it in a training history, as often as it does."""
    window: int = Field(5, ge=1)
    """Near: at most so many places away."""

    @model_validator(mode="after")
    def _some(self) -> PairTasks:
        if self.views + self.together == 0:
            raise ValueError("views and together are both 0: no pair is left; leave the phase out with training.steps")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of items of one history, where there are no pairs of them."""
        yield from super().unread()
        if not self.together:
            yield "is of items of one history, and together is 0", ("window",)


class MoCaTable(ReadText, Sharded, Finish, RecipeSettings):
    """MoCa (2025): continual pre-training with attention both ways, then contrastive fine-tuning."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.moca:MoCaRecipe"
    LEARNS: ClassVar[bool] = True
    TRAINS: ClassVar[bool] = True
    recipe: Literal["moca"] = "moca"
    model: DecoderName
    """Name under `models`: a decoder; one that sees, where pictures are shown."""
    shown: Literal["text", "image", "both"] = "text"
    """What is read of an item: its text, its picture, or both in one pass. Of both, what there is."""
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    """Whether a token sees those after it, in both phases and in the table."""
    pooling: Literal["mean", "last"] = "mean"
    """Mean over all tokens, pieces of the picture included, or the last one."""
    lora: LoRA | None = None
    """Adapters on the language part are trained; null trains all weights, as published, in float32."""
    continual: Continual = Field(default_factory=Continual)
    """The first phase."""
    pairs: PairTasks = Field(default_factory=PairTasks)
    """The second phase's pairs."""
    drop: float = Field(0.4, ge=0, lt=1)
    """What a view leaves out: this share of the attributes and of the picture's tokens, and, where both are shown, with
    this chance the whole text or the whole picture. All that the second phase reads is read as views: pairs from
    histories and hard negatives, too. 0 leaves nothing out, and shuffles attributes alone."""
    temperature: float = Field(0.1, gt=0)
    """Of the second phase's loss. Published is 0.03, for queries and documents; items of one history are less alike."""
    hard_negatives: int = Field(0, ge=0, le=16)
    """Negatives of its own for every query of `together`: items that share an attribute with it and never stand near it
    in a training history. Where there is none, none is put in its place."""
    max_pixels: int = Field(MAX_PIXELS, ge=1024)
    """Larger pictures are made smaller: memory and tokens go with pixels."""
    recompute: bool = False
    """Keep the states of `batch_tokens` tokens at a time and compute the others again for the gradient."""
    batch: int = Field(64, ge=1)
    """Items that are opened at once when the table is made."""
    pca: int | None = Field(512, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps all."""
    training: Steps = Field(default_factory=lambda: Steps(steps=1000, batch=128, gradient_clip=5.0))
    """The second phase, and the machine of both; no steps leave it out."""

    def modalities(self, config: Config) -> frozenset[str]:
        """What is read."""
        text = frozenset({"text"}) | self.captioned(config)
        return {"text": text, "image": frozenset({"image"}), "both": text | {"image"}}[self.shown]

    @property
    def takes_new(self) -> bool:
        """Unless it is shown pictures alone: new items have none."""
        return self.shown != "image"

    def reads_pictures(self, source: str) -> bool:
        """It opens them, unless the text alone is read."""
        return self.shown != "text"

    @model_validator(mode="after")
    def _fits(self) -> MoCaTable:
        if self.shown == "image" and self.captions:
            raise ValueError("captions: are read with the text, and shown: image reads none")
        if self.hard_negatives and self.shown == "image":
            raise ValueError("hard_negatives: share an attribute that is told, and shown: image tells none")
        if self.hard_negatives and not self.pairs.together:
            raise ValueError("hard_negatives: are of the pairs of items, and pairs.together is 0")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of pictures or texts that are not shown, and of a phase that is left out."""
        yield from super().unread()
        if self.shown == "text":
            within = (f"continual.{key}" for key in OF_PICTURES)
            yield "is of pictures, and shown: text reads none", ("max_pixels", *within)
        elif self.shown == "image":
            yield "is of texts, and shown: image reads none", ("max_tokens", "continual.mask_text")
        if not self.training.steps:
            steps = (f"training.{key}" for key in ("batch", *OptimizerSettings.model_fields))
            of_second = ("pairs", "drop", "temperature", "hard_negatives", *steps)
            yield "is of the second phase, which training.steps: 0 leaves out", of_second

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """What the model must be able to do, and a first phase that gives nothing back."""
        yield from super().problems(config)
        first = self.continual
        texts = self.shown != "image" and first.mask_text
        if first.steps and not (texts or (self.shown != "text" and first.mask_picture and first.picture_weight)):
            gives = f"of shown: {self.shown} nothing is given back (mask_text, mask_picture, picture_weight)"
            yield "continual", f"{gives}; leave the phase out with steps: 0"
        model = config.models.get(self.model)
        if model is None:
            return
        if self.shown != "text" and VISION not in model.offers():
            yield "model", f"{self.model!r} {VISION.refusal}"
        if isinstance(model, BuiltModel):
            return
        if self.attention == "bidirectional" and model.attention == "flash_attention_2":
            yield (
                "attention",
                f"flash_attention_2 of {self.model!r} takes no mask that sees both ways; use sdpa",
            )
        if self.lora is None and (model.dtype != "float32" or model.quantization != "none"):
            held = model.dtype if model.quantization == "none" else model.quantization
            yield "lora", f"all weights learn in float32, and {self.model!r} is held in {held}; give lora: {{}}"
        copied = self.shown != "text" and self.continual.steps and self.continual.mask_picture
        if copied and self.continual.picture_weight and model.quantization != "none":
            yield (
                "continual.mask_picture",
                f"pictures are given back by a copy of a layer, which learns, and {self.model!r} is held in "
                f"{model.quantization}; give 0",
            )
