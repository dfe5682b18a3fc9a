"""Settings of what is compared: heuristics, items under a backbone, and recommenders that bring their own network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tessera.settings.base import PresetSettings, Seed, Settings, Width
from tessera.settings.embedding import LoRA
from tessera.settings.evaluation import RepeatTargets
from tessera.settings.language import LanguageModel
from tessera.settings.recommenders import (
    Backbone,
    CrossEntropy,
    IdItems,
    ItemEncoder,
    ItemKNNSettings,
    Loss,
    MarkovSettings,
    PopularSettings,
    Training,
)


class BackboneSystem(Settings):
    """Items that enter a backbone through an item encoder; trained under every backbone of the experiment."""

    recommender: Literal["backbone"] = "backbone"
    items: ItemEncoder = Field(default_factory=IdItems)
    """`ids`, `{table: NAME, adapter: [256]}`, or `{semantic_ids: NAME}`."""
    loss: Loss | None = None
    """Overrides the experiment's `loss`."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of `training` that differ for this system."""
    backbones: list[str] | None = None
    """Only under these backbones; null takes the experiment's."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """Only these seeds; null takes the experiment's."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "items" in data:
            items = data["items"]
            if isinstance(items, str):
                items = {"kind": items}
            elif isinstance(items, Mapping) and "kind" not in items:
                kind = next((kind for kind in ("semantic_ids", "table") if kind in items), None)
                items = {"kind": kind, **items} if kind else items
            return {**data, "items": items}
        return data


class NetworkSystem(Settings):
    """A recommender that is a network of its own: trained once a seed, under no backbone."""

    semantic_ids: str
    """Name under `semantic_ids`."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of `training` that differ for this system."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """Only these seeds; null takes the experiment's."""


class TIGERSystem(NetworkSystem):
    """Generative retrieval: an encoder-decoder writes the codes of the next item (Rajput et al., NeurIPS 2023)."""

    recommender: Literal["tiger"] = "tiger"
    dim: Width = 64
    """Width of token vectors and hidden states (128 in the paper)."""
    inner_dim: Width = 256
    """Width of the feed-forward layers (1024 in the paper)."""
    layers: int = Field(2, ge=1, le=1000)
    """Layers of the encoder and of the decoder (4 in the paper)."""
    heads: int = Field(4, ge=1, le=2**16)
    """Attention heads a layer (6 in the paper)."""
    head_dim: Width = 16
    """Width of a head (64 in the paper)."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings, attention and outputs (0.1 in the paper)."""
    max_length: int = Field(20, ge=1)
    """Items of a history that the encoder reads."""
    pool_items: bool = True
    """Read an item of the history as the sum of its codes' vectors in one position; false reads a position a code, as
    in the paper."""
    encoder: Literal["bidirectional", "causal"] = "causal"
    """Encode the items before every target anew, each seeing all others, as in the paper; or a history once for all of
    its targets, each item seeing those before it, which costs many times less."""
    recency: bool = True
    """Tell how many items ago an item was: its vector does, or, with a causal encoder, what the decoder's attention
    adds. T5 knows distances between tokens alone, as in the paper."""
    summary: bool = True
    """Begin what is written with the encoder's state of the last item, on top of the vector that begins every sequence;
    false begins with that vector alone, as in the paper."""
    tokens: Literal["codes", "prefixes"] = "codes"
    """A token for every code of a level, as in the paper, or for every prefix that items have: the same code after
    other codes is then another token, and the last one is an item's own. Needs `loss` and `normalize` over the
    catalogue."""
    tied: bool = True
    """Score codes by the vectors that they are read with; false gives them vectors of their own, as T5 1.1 does."""
    user_tokens: int = Field(0, ge=0)
    """Tokens that users are hashed to (2000 in the paper); 0 leaves users out. Needs a bidirectional encoder."""
    loss: Literal["catalogue", "vocabulary"] = "catalogue"
    """Cross-entropy over the codes that lead to an item, so that the catalogue need not be learned by heart, or over
    all codes of a level, as in the paper."""
    scoring: Literal["beam", "exact"] = "beam"
    """Beam search in the code tree, or every item's probability, for catalogues of a few thousand items."""
    beams: int = Field(30, ge=1)
    """Prefixes kept at a level. All items that those of the last level but one lead to get a rank of their own; the
    others share the last one."""
    normalize: Literal["catalogue", "vocabulary"] = "catalogue"
    """Probabilities over the codes that lead to an item, or over all codes, the impossible ones dropped afterwards."""
    cold_share: float = Field(0.0, ge=0, lt=1)
    """Share of a list that is kept for items without training interactions which the beam reached (0.1 in the paper's
    cold-start study)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tokens == "prefixes" and (self.loss, self.normalize) != ("catalogue", "catalogue"):
            raise ValueError(
                "tokens: prefixes says nothing of codes that no item has; set loss and normalize to catalogue"
            )
        if self.user_tokens and self.encoder == "causal":
            raise ValueError("user_tokens: the token of a user is read by a bidirectional encoder alone; set encoder")
        return self


class MMESIDSystem(NetworkSystem, PresetSettings):
    """Items as raw tables and code sums in front of a language model that encodes the history (MME-SID, CIKM 2025)."""

    OFFICIAL: ClassVar[dict[str, Any]] = {
        "prompt": "short", "readout": "response", "adapt": "feed_forward", "standardize": False,
        "gate_temperature": 1.0e-3, "scale_scores": False,
        "empty_history": True, "padding_class": True,
    }  # fmt: skip
    recommender: Literal["mme_sid"] = "mme_sid"
    model: str
    """Name under `models`: a decoder, or a vision-language model, of which the text part is used."""
    tables: list[str] | None = None
    """Of the tables that the codes were made from, only these, raw and as codes; null takes all."""
    raw: bool = True
    """Read the tables that the codes were made from, projected to the model's width."""
    codes: bool = True
    """Read the sums of the codes' vectors."""
    start: Literal["codebooks", "random"] = "codebooks"
    """Code vectors start as the quantiser's codebooks, or at random: the difference is the forgetting of the paper."""
    standardize: bool = True
    """Centre each raw table and scale it, and the codebooks of each table, to unit mean square; false leaves them as
    they are, as published."""
    fusion: list[Width] | None = None
    """Hidden widths between the branches of an item and its token; null is half of all branches, as published."""
    scoring: Literal["fused", "id"] = "fused"
    """Score by an ID head and one head a raw table, tied to its projection, or by the ID head alone."""
    gate: bool = True
    """Mix the scores by the item's popularity; otherwise they are added."""
    gate_temperature: float = Field(1.0, gt=0)
    """Temperature of that mixture; 1.0e-3 is almost one score alone, as published."""
    scale_scores: bool = True
    """Divide the scores of the tables by the root of the model's width, so that training starts from small ones; false
    does not, as published."""
    instruction: str = Field("Items of a customer, oldest first. Predict the next one:", min_length=1)
    """What the model is told before the items."""
    system_message: str = ""
    """System message of the chat; none where it is empty."""
    prompt: Literal["chat", "short"] = "chat"
    """The instruction in the model's chat template, or after an opening brace without one, as published."""
    readout: Literal["response", "item"] = "item"
    """Where a history's state is read: at the last token of the response's beginning (the paper), or at its last item,
    which costs no further tokens and asks less of a small model's attention."""
    packed: bool = True
    """Train all targets of a history in one pass, exactly; false reads every prefix of a history as a row of its own,
    for models whose attention takes no mask of ours (flash_attention_2)."""
    empty_history: bool = False
    """Also predict a history's first item, from the instruction alone, as published."""
    padding_class: bool = False
    """Count the padding item as a class that is never true, as published."""
    lora: LoRA | None = Field(default_factory=lambda: LoRA(rank=8, alpha=16, dropout=0.05))
    """What is trained in the language model; null keeps it frozen."""
    adapt: Literal["feed_forward", "all"] = "all"
    """Adapters on the layers of attention too, or on feed-forward layers alone (the paper)."""
    max_length: int = Field(50, ge=1)
    """Items of a history that are read."""

    @model_validator(mode="after")
    def _something_to_read(self) -> MMESIDSystem:
        if not self.raw and not self.codes:
            raise ValueError("raw and codes are both false: an item would have nothing to tell")
        if self.tables is not None and not self.tables:
            raise ValueError("tables is empty: an item would have nothing to tell; null takes all")
        return self


def _system_tag(data: Any) -> str:
    found = data.get("recommender", "backbone") if isinstance(data, Mapping) else getattr(data, "recommender", None)
    return str(found)


System = Annotated[
    Annotated[PopularSettings, Tag("popular")]
    | Annotated[ItemKNNSettings, Tag("item_knn")]
    | Annotated[MarkovSettings, Tag("markov")]
    | Annotated[TIGERSystem, Tag("tiger")]
    | Annotated[MMESIDSystem, Tag("mme_sid")]
    | Annotated[BackboneSystem, Tag("backbone")],
    Discriminator(_system_tag),
]

BUILT_IN_SYSTEMS: dict[str, Any] = {
    "popular": {"recommender": "popular"},
    "item_knn": {"recommender": "item_knn"},
    "markov": {"recommender": "markov"},
    "id": {"items": "ids"},
}


class Run(Settings):
    """One training, with every default resolved: what the train rule carries in its params."""

    system: str
    recommender: str
    seed: int
    method: System
    backbone: Backbone | None = None
    model: LanguageModel | None = None
    """The language model of a network that has one."""
    loss: Loss = Field(default_factory=CrossEntropy)
    training: Training = Field(default_factory=Training)
    mask_seen: bool = True
    """As in `evaluation`: validation, which stops training, masks what the test masks."""
    repeat_targets: RepeatTargets = "miss"
    """As in `evaluation`."""
    tables: list[str] = Field(default_factory=list)
    """Item tables that are read, in the order of the run's inputs."""
    remarks: list[str] = Field(default_factory=list)
    """What every table that shows the run says about it."""

    @property
    def path(self) -> str:
        """Folder of the run below `results/<dataset>/runs/`."""
        return f"{self.system}/{self.recommender}/seed-{self.seed}"

    @property
    def heuristic(self) -> bool:
        """Fitted by counting: one run, whatever the seed."""
        return not isinstance(self.method, (BackboneSystem, NetworkSystem))
