"""Settings of LEMUR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import ASIDE, Settings, Width
from tessera.settings.clicks.base import ClickModel
from tessera.settings.training import OptimizerSettings

if TYPE_CHECKING:
    from tessera.settings.config import Config


OF_CONTRAST = ("scale", "session_mask", "duplicate_mask", "negatives")
"""Keys of the contrastive loss of query and item."""


class QueryReader(Settings):
    """A bidirectional transformer over the tokens of an item."""

    hidden: Width = 128
    """Width of its states."""
    layers: int = Field(2, ge=1, le=1000)
    """How many."""
    heads: int = Field(4, ge=1, le=2**16)
    """Attention heads; they divide `hidden`."""
    pooling: Literal["start", "mean"] = "mean"
    """What becomes the vector: the mean of all states, or the state of the start token, as in the paper."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in every layer."""
    batch_tokens: int = Field(16384, ge=1)
    """Most padded tokens that are read at once."""
    recompute: bool = False
    """Keep no activations for the gradient and make them again, `batch_tokens` at a time: less memory, the same
    gradient."""

    @model_validator(mode="after")
    def _heads_divide(self) -> QueryReader:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} does not divide among {self.heads} heads")
        return self


class DocumentReader(QueryReader):
    """The transformer of what is shown: all fields, and the picture."""

    layers: int = Field(4, ge=1, le=1000)
    """How many."""


class LEMURSettings(ClickModel):
    """Encoders of raw texts and pictures trained together with the ranker, histories from a memory bank (LEMUR,
    arXiv 2511.10962): built from descriptions of the paper, no code was published."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.lemur:Model"
    model: Literal["lemur"] = "lemur"
    READS_CONTENT: ClassVar[bool] = True
    regime: Literal["bank", "end_to_end", "frozen"] = "bank"
    """Where vectors of items come from: targets from the encoder and histories from the bank; all items of a batch from
    the encoder, with the exact gradient; or an encoder that learned from the contrastive loss alone, before the
    ranker."""
    width: Width = 128
    """Width of the vectors of queries and items."""
    documents: DocumentReader = Field(default_factory=DocumentReader)
    """The encoder of items."""
    queries: QueryReader = Field(default_factory=QueryReader)
    """The encoder of queries. Logs without queries take the last event's first field for one."""
    standardized: bool = True
    """Vectors of queries and items have mean 0 and variance 1 a column over those that are encoded together, and by the
    statistics of training afterwards; without it, as in the paper, those of a small model become one (docs)."""
    encoder: OptimizerSettings = Field(default_factory=lambda: OptimizerSettings(learning_rate=1.0e-4))
    """The optimiser of both; `ctr.training` is that of the ranker."""
    pretraining: int | None = Field(None, ge=0)
    """Epochs of the contrastive loss alone before the ranker; null takes `ctr.training.epochs` where the encoder is
    frozen afterwards, none otherwise."""
    long: int = Field(1000, ge=0)
    """Latest events of the long sequence of content vectors; 0 reads none."""
    recent: int = Field(50, ge=0)
    """Latest events of the short one; 0 reads none."""
    short: int = Field(20, ge=0)
    """Last events whose ids are attended to, as the other models do; 0 attends to none."""
    attention_hidden: list[Width] = Field(default_factory=lambda: [36], min_length=1)
    """Hidden widths of that attention's network."""
    decoder_layers: int = Field(2, ge=1, le=1000)
    """Layers of the decoder of each sequence."""
    decoder_heads: int = Field(4, ge=1, le=2**16)
    """Its heads; they divide `width`."""
    cosines: bool = True
    """The ranker reads the cosines of target and events, by time and sorted."""
    contrastive: float = Field(0.1, ge=0)
    """Weight of the contrastive loss of query and item (SQDC)."""
    scale: float = Field(5.0, gt=0)
    """What its cosines are multiplied with: one by the temperature. The paper has 50, for queries that say what is
    looked for; the last event says less, and under 50 that drives the vectors together."""
    session_mask: bool = True
    """Rows of the same session are no negatives of one another; a user is one where the log has no queries."""
    duplicate_mask: bool = True
    """Rows that show the same item are none either."""
    negatives: Literal["all", "clicked"] = "all"
    """Which rows of the batch stand against a click: all, or those that were clicked, too."""
    content_id: float = Field(0.0, ge=0)
    """Weight of a contrastive loss of an item's content vector and its id vector (CIC); 0 has none."""
    ranker_gradient: bool = True
    """The loss of the click reaches the encoders; without it they learn from the contrastive loss alone."""
    forwarded: float = Field(1.0, gt=0, le=1)
    """Share of a batch's distinct targets that the encoder reads (p); the others come from the bank."""
    learned: float = Field(1.0, gt=0, le=1)
    """Share of them through which the encoder learns (q), at most `forwarded`."""
    refresh: Literal["uniform", "age"] = "uniform"
    """Which targets are read: any, or more often those whose vectors in the bank are old and often asked for."""
    storage: Literal["float32", "float16", "bfloat16"] = "float32"
    """How the bank holds vectors."""
    mapped: Annotated[bool, ASIDE] = False
    """Vectors of items and queries lie in files beside the run's state that are mapped into memory, and are read row by
    row: for catalogues that memory does not hold. The numbers are the same: a change trains nothing again, and a run
    that memory did not hold goes on from its state."""
    snapshot: Literal["as_left", "refreshed"] = "as_left"
    """What judging reads: the bank as training left it, with what it lacks (items that training never showed) as the
    trained encoder says it; or all of it written anew from the trained encoder."""
    token_dim: Width = 64
    """Least width of a token of the ranker."""
    mixer_layers: int = Field(2, ge=1, le=1000)
    """Its blocks."""
    mixer_expansion: int = Field(2, ge=1, le=64)
    """How much wider the networks of its tokens are inside."""
    hidden: list[Width] = Field(default_factory=lambda: [64])
    """Hidden widths of the network on top of the ranker's tokens."""

    @model_validator(mode="after")
    def _sensible(self) -> LEMURSettings:
        if self.width % self.decoder_heads:
            raise ValueError(f"width {self.width} does not divide among {self.decoder_heads} decoder_heads")
        if self.learned > self.forwarded:
            raise ValueError(f"learned {self.learned} is more than forwarded {self.forwarded}: what is not read cannot")
        if self.regime != "bank":
            for key in ("forwarded", "learned", "refresh", "snapshot"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is of regime bank; {self.regime} has no stale vectors: leave it out")
        elif self.refresh == "age" and self.learned == 1:
            raise ValueError("refresh age draws the targets that are read, and forwarded 1 and learned 1 take them all")
        trains_alone = self.regime == "frozen" or self.pretraining
        if (trains_alone or not self.ranker_gradient) and not (self.contrastive or self.content_id):
            raise ValueError(
                f"contrastive is {self.contrastive:g}, but without the loss of the click the encoders learn from that "
                "alone; give it a weight"
            )
        if self.regime == "frozen" and self.pretraining == 0:
            raise ValueError("pretraining is 0: a frozen encoder would have learned nothing")
        if self.regime == "frozen" and not self.contrastive:
            raise ValueError("a frozen encoder learns from the contrastive loss: give contrastive a weight")
        if self.pretraining and not self.contrastive:
            raise ValueError("pretraining learns from the contrastive loss: give contrastive a weight")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of losses and sequences that the model does not have."""
        yield from super().unread()
        if not self.contrastive:
            yield "is of the contrastive loss, whose weight is 0", OF_CONTRAST
        if not (self.long or self.recent):
            yield "is of sequences, and neither long nor recent reads any", ("decoder_layers", "decoder_heads")
        if not self.short:
            yield "is of the last events, and short reads none", ("attention_hidden",)
        if self.regime == "frozen":
            yield "is of encoders that learn beside the ranker, and regime frozen has none", ("ranker_gradient",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also cosines that are asked for of no events."""
        yield from super().problems(config)
        if self.cosines and "cosines" in self.model_fields_set and not (self.long or self.recent):
            yield "cosines", "are of target and events, and neither long nor recent reads any; leave it out"

    def remarks(self) -> list[str]:
        """No code was published."""
        return ["a reconstruction: no code was published"]
