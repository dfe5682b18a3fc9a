"""Settings of EIMF-style multi-interest learning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import Settings, Width
from tessera.settings.items.base import ItemEncoder, written_out
from tessera.settings.items.ids import IdItems
from tessera.settings.references import ITEM_VECTORS, InterestsTableName, Need
from tessera.settings.systems.base import TrainedSystem

if TYPE_CHECKING:
    from tessera.settings.config import Config


class InterestMatching(Settings):
    """A user's vectors are matched with their written interests one to one, and drawn to them by contrast."""

    weight: float = Field(0.1, gt=0)
    """Beside the loss of the recommender."""
    temperature: float = Field(0.1, gt=0)
    """Of the cosines."""


class SemanticPrediction(Settings):
    """What is predicted across the two modules; the paper's own form is not known."""

    mode: Literal["item_from_semantics", "semantics_from_behaviour"] = "item_from_semantics"
    """The next item from the written interests, by the shared item vectors; or the mean of the written interests from
    the user's vectors, by cosine."""
    weight: float = Field(0.1, gt=0)
    """Beside the loss of the recommender."""


class EIMFSystem(TrainedSystem):
    """Several vectors a user, taught by interests that a language model wrote for typical users (EIMF-style)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.eimf:EIMF"
    HISTORY_LOSSES: ClassVar[bool] = True
    LEAVES_OUT_COLD: ClassVar[bool] = True
    FREE: ClassVar[frozenset[str]] = TrainedSystem.FREE | {"loss_over", "typical"}
    recommender: Literal["eimf"] = "eimf"
    items: ItemEncoder = Field(default_factory=IdItems)
    """`ids`, `{table: NAME, adapter: [256]}`, or `{semantic_ids: NAME}`."""
    interests: InterestsTableName | None = None
    """Name of a table of recipe `interests`; null trains on behaviour alone. Scores never read it."""
    network: Literal["attention", "capsules"] = "attention"
    """How a history becomes several vectors: self-attentive (ComiRec-SA), or dynamic routing (ComiRec-DR)."""
    vectors: int = Field(4, ge=1, le=64)
    """Vectors a user, of which the best counts for an item."""
    dim: Width = 64
    """Width of item vectors and of a user's vectors."""
    inner_dim: Width = 256
    """Width of the hidden layer of the attention."""
    iterations: int = Field(3, ge=1, le=20)
    """Rounds of the routing."""
    order: Literal["ages", "positions", "none"] = "ages"
    """What tells when an item was met: a learned weight by how many items came after it, each vector from a horizon of
    its own on (1, 2, 4, ... items); a learned vector by its place from the start of what is read, as in ComiRec-SA
    (attention alone); or nothing."""
    readout: Literal["linear", "none"] = "linear"
    """After the attention: one linear map that starts as the identity, or nothing, so that a user's vectors are
    weighted means of item vectors, as in ComiRec-SA. Capsules have a map an interest of their own."""
    norm: bool = True
    """Bring a user's vectors to one size, by a layer norm, and what they are made of to that size; false leaves both as
    they are, as in ComiRec."""
    loss_over: Literal["scores", "nearest"] = "scores"
    """The cross-entropy of the scores as they are served, for each item those of the best vector; or of the one vector
    that is nearest to the target, as in ComiRec: the others then learn nothing of items for which they are best."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on the item vectors of a history."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once; longer ones are trained in windows and scored on their end."""
    matching: InterestMatching | None = Field(default_factory=InterestMatching)
    """Modality alignment, by matching; null goes without."""
    prediction: SemanticPrediction | None = Field(default_factory=SemanticPrediction)
    """Semantic prediction; null goes without."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths between written interests and item vectors, and back; [] is one linear map."""
    typical: int = Field(64, ge=2, le=4096)
    """Typical users whom a step learns from beside its batch, at most."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "items" in data:
            return {**data, "items": written_out(data["items"])}
        return data

    @model_validator(mode="after")
    def _capsules_have_no_places(self) -> EIMFSystem:
        if self.network == "capsules" and self.order == "positions":
            raise ValueError("order: positions are those of network: attention; expected 'ages' or 'none'")
        return self

    @model_validator(mode="after")
    def _interests_are_read(self) -> EIMFSystem:
        if self.interests is not None and self.matching is None and self.prediction is None:
            raise ValueError("interests: neither matching nor prediction reads them; leave them out, too")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of the other network, of a best of one vector, and of written interests that are not read."""
        yield from super().unread()
        if self.network == "attention":
            yield "is of network capsules, and the network is attention", ("iterations",)
        else:
            yield "is of network attention, and the network is capsules", ("inner_dim", "readout")
        if self.vectors == 1:
            yield "says which of several vectors learns, and vectors: 1 has one", ("loss_over",)
        if self.interests is None:
            # who goes without a task says nothing in vain
            tasks = [key for key in ("matching", "prediction") if getattr(self, key) is not None]
            yield "is of written interests, and interests names no table", (*tasks, "adapter", "typical")

    def offers(self) -> frozenset[Need]:
        """Not item vectors that others may read: they belong to a network that only this system has."""
        return self.items.offers() - {ITEM_VECTORS}

    @property
    def takes_new(self) -> bool:
        """Where an item's content alone says what it is."""
        return self.items.TAKES_NEW

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also items that need a backbone."""
        yield from super().problems(config)
        if self.items.CHANGES_BACKBONE:
            yield "items", f"kind {self.items.kind!r} enters a backbone, which this system has not"

    def remarks(self) -> list[str]:
        """Of the paper the abstract alone was to be had."""
        return ["a reconstruction: its method section was not to be had"] if self.interests is not None else []
