"""Settings of TIGER."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from tessera.settings.base import Width
from tessera.settings.references import SequenceCodesName
from tessera.settings.systems.base import TrainedSystem


class TIGERSystem(TrainedSystem):
    """Generative retrieval: an encoder-decoder writes the codes of the next item (Rajput et al., NeurIPS 2023)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.tiger:TIGER"
    FREE: ClassVar[frozenset[str]] = TrainedSystem.FREE | {"loss", "scoring", "beams", "normalize"}
    recommender: Literal["tiger"] = "tiger"
    semantic_ids: SequenceCodesName
    """Name under `semantic_ids`."""
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

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of beams that there are none of."""
        yield from super().unread()
        if self.scoring == "exact":
            yield "is of scoring beam, and exact scores every item", ("beams",)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tokens == "prefixes" and (self.loss, self.normalize) != ("catalogue", "catalogue"):
            raise ValueError(
                "tokens: prefixes says nothing of codes that no item has; set loss and normalize to catalogue"
            )
        if self.user_tokens and self.encoder == "causal":
            raise ValueError("user_tokens: the token of a user is read by a bidirectional encoder alone; set encoder")
        return self
