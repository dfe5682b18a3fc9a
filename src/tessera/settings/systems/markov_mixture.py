"""Settings of a trained system beside a Markov chain."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tessera.settings.kinds import FAMILIES, KindOf, settings_class
from tessera.settings.similar import OF_SIMILAR, SimilarItems
from tessera.settings.systems.backbone_base import UnderBackbones

if TYPE_CHECKING:
    from tessera.settings.config import Config


class _WithinSystem(KindOf):
    """A system within another. Its schema is not written out: systems would stand in systems without end."""

    def json_schema(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A map of keys."""
        return {"type": "object"}


def _ids() -> UnderBackbones:
    """What a system is where nothing is said of it."""
    kind: Any = settings_class("systems", str(FAMILIES["systems"].default))
    made: UnderBackbones = kind()
    return made


class MarkovMixtureSystem(UnderBackbones):
    """A trained system, and beside it what its training histories say of the item that comes next to the last one."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.markov_mixture:MarkovMixture"
    CHANGES_AT_THE_END: ClassVar[bool] = True
    KNOWS_MODALITIES: ClassVar[bool] = True  # as a system within it may
    recommender: Literal["markov_mixture"] = "markov_mixture"
    base: Annotated[UnderBackbones, _WithinSystem("systems")] = Field(default_factory=_ids)
    """The system that is trained, any that has a backbone: `{items: ids}`, `{recommender: pad, table: NAME}`."""
    weight: float | None = Field(None, ge=0, le=100)
    """Weight of the logarithm of transition shares beside that of the base's probabilities; null chooses it on
    validation once, after training."""
    grid: list[float] = Field(default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8], min_length=1)
    """What the weight is chosen from; of equals the smallest. 0 is always among them."""
    smoothing: float = Field(1.0, gt=0)
    """Pseudo-transitions from every item, spread evenly over the catalogue."""
    kept: int = Field(100, ge=1, le=100_000)
    """Items kept an item that follow it, the most frequent ones."""
    similar: SimilarItems | None = None
    """Items whose transitions an item borrows; null leaves every item to its own."""
    strength: float | None = Field(None, ge=0)
    """Pseudo-transitions that are spread as those of similar items are; null chooses it together with the weight."""
    strengths: list[float] = Field(default_factory=lambda: [0.0, 1.0, 4.0, 16.0], min_length=1)
    """What the strength is chosen from; of equals the smallest."""

    @model_validator(mode="before")
    @classmethod
    def _same_backbones(cls, data: Any) -> Any:
        """What does not fit a backbone is told of the base: it is under those of the whole."""
        if not isinstance(data, Mapping) or not isinstance(data.get("base", {}), Mapping):
            return data
        under, base = data.get("backbones"), data.get("base", {})
        if base.get("backbones") not in (None, under):
            raise ValueError("base.backbones: is said of the whole system, beside `base`")
        return data if under is None else {**data, "base": {**base, "backbones": under}}

    @field_validator("base")
    @classmethod
    def _base_fits(cls, value: Any) -> Any:
        if not isinstance(value, UnderBackbones) or isinstance(value, MarkovMixtureSystem):
            raise ValueError(f"{value.recommender!r} is no trained system with a backbone")
        for name, field in UnderBackbones.model_fields.items():
            if name in ("recommender", "backbones", "loss"):
                continue
            if getattr(value, name) != field.get_default(call_default_factory=True):
                raise ValueError(f"{name}: is said of the whole system, beside `base`")
        return value

    @model_validator(mode="after")
    def _loss_of_base(self) -> MarkovMixtureSystem:
        """A published base brings its own loss."""
        if self.loss is None and self.base.loss is not None:
            return self.model_copy(update={"loss": self.base.loss})
        return self

    @field_validator("grid", "strengths")
    @classmethod
    def _not_negative(cls, values: list[float]) -> list[float]:
        if wrong := [value for value in values if value < 0]:
            raise ValueError(f"none is below 0 (got {wrong[0]:g})")
        return sorted(set(values))

    @field_validator("grid")
    @classmethod
    def _with_nothing(cls, values: list[float]) -> list[float]:
        return sorted({0.0, *values})

    @property
    def weights(self) -> list[float]:
        """What the weight may be."""
        return self.grid if self.weight is None else [self.weight]

    @property
    def borrowed(self) -> list[float]:
        """What the strength may be."""
        if self.similar is None:
            return [0.0]
        return self.strengths if self.strength is None else [self.strength]

    @property
    def takes_new(self) -> bool:
        """Where the base does."""
        return self.base.takes_new

    def item_tables(self, config: Config) -> list[str]:
        """Those of the base, and the one that says what is similar."""
        tables: Collection[str] = self.base.item_tables(config)
        similar = self.similar.table if self.similar is not None else None
        return list(dict.fromkeys([*tables, *([similar] if similar is not None else [])]))

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also a strength of nothing, and what is chosen from where nothing is chosen."""
        yield from super().unread()
        if self.weight is not None:
            yield "is what the weight is chosen from, and `weight` is given", ("grid",)
        if self.similar is None:
            yield OF_SIMILAR, ("strength", "strengths")
        elif self.strength is not None:
            yield "is what the strength is chosen from, and `strength` is given", ("strengths",)

    def remarks(self) -> list[str]:
        """What the tables that show the base would say of it."""
        parts = {"its base runs": self.base, "items enter": getattr(self.base, "items", None)}
        official = [what for what, part in parts.items() if getattr(part, "preset", None) == "official"]
        return [f"{what} under preset official" for what in official]
