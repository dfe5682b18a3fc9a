"""Items under a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.items.base import ItemEncoder, written_out
from tessera.settings.items.ids import IdItems
from tessera.settings.references import Need
from tessera.settings.systems.backbone_base import UnderBackbones

if TYPE_CHECKING:
    from tessera.settings.config import Config


class BackboneSystem(UnderBackbones):
    """Items that enter a backbone through an item encoder; trained under every backbone of the experiment."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.backbone:SequentialRecommender"
    FREE: ClassVar[frozenset[str]] = UnderBackbones.FREE | {"samples"}
    HISTORY_LOSSES: ClassVar[bool] = True

    recommender: Literal["backbone"] = "backbone"
    items: ItemEncoder = Field(default_factory=IdItems)
    """`ids`, `{table: NAME, adapter: [256]}`, or `{semantic_ids: NAME}`."""
    scores: Literal["product", "cosine"] = "product"
    """How states and item vectors are compared: by their inner product, or by their cosine over `temperature`."""
    temperature: float = Field(0.05, gt=0)
    """What cosines are divided by."""
    learn_temperature: bool = False
    """Whether `temperature` is only where training starts."""
    samples: Literal["windows", "prefixes"] = "windows"
    """Train on windows of histories, all of whose items are targets in one pass, or on every prefix of a history by
    itself, the item after it the one target (also where the backbone has `targets: last`)."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "items" in data:
            return {**data, "items": written_out(data["items"])}
        return data

    def offers(self) -> frozenset[Need]:
        """What the items offer."""
        return self.items.offers()

    @property
    def takes_new(self) -> bool:
        """Where an item's content alone says what it is."""
        return self.items.TAKES_NEW

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of cosines that are not taken."""
        yield from super().unread()
        if self.scores == "product":
            yield "is read with `scores: cosine` alone", ("temperature", "learn_temperature")

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also items that do not fit a backbone that reads them."""
        yield from super().problems(config)
        used = {name: config.backbones[name] for name in self.under(config) if name in config.backbones}
        yield from ((f"items.{key}" if key else "items", text) for key, text in self.items.misfits(used, config))
