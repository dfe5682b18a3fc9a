"""What quantisers share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, model_validator

from tessera.settings.base import shown_value
from tessera.settings.kinds import Kind, KindOf
from tessera.settings.references import ONE_SEQUENCE, Need, TableName

MOST_CODES = 2**20
_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1}


_ONE_OR_MORE = WithJsonSchema({"anyOf": [_NAMES, {"type": "string"}]})


Conflicts = Literal["none", "extra_level", "nearest", "sinkhorn"]


class QuantizerSettings(Kind):
    """What makes semantic IDs."""

    READS_OF_DATASET: ClassVar[dict[str, str]] = {}
    """Files of the dataset that the codes come from, by the name of the input."""
    CODEBOOKS: ClassVar[bool | None] = None
    """Whether vectors stand behind the codes; None of a kind that does not say."""

    quantizer: str
    """What makes the codes."""
    conflicts: Conflicts = "nearest"
    """Items with the same codes."""

    def offers(self) -> frozenset[Need]:
        """One sequence of codes an item."""
        return frozenset({ONE_SEQUENCE})


class Codes(QuantizerSettings):
    """What every quantiser may say."""

    CODEBOOKS: ClassVar[bool | None] = True
    tables: Annotated[list[TableName], _ONE_OR_MORE] = Field(min_length=1)
    """Names under `tables`; one name may stand alone. Several are laid side by side, each scaled to the same size."""
    levels: int = Field(3, ge=1, le=1000)
    """Codes an item: residual levels, or subspaces of product quantisation."""
    codes: int | list[int] = 256
    """Codes to choose from at a level; a list says it for every level."""
    conflicts: Conflicts = "nearest"
    """Items with the same codes: left so (none), told apart by one more code (extra_level), or moved to another code
    of the last level: the cheapest within their prefix (nearest), or by optimal transport (sinkhorn, LC-Rec)."""
    seed: int = Field(1, ge=0)
    """Seed of the k-means that makes codebooks, or that they start from."""

    @model_validator(mode="before")
    @classmethod
    def _one_table(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("tables"), str):
            return {**data, "tables": [data["tables"]]}
        return data

    @property
    def sizes(self) -> list[int]:
        """Codes to choose from, a level each."""
        return [self.codes] * self.levels if isinstance(self.codes, int) else list(self.codes)

    def problems(self, config: Any) -> Iterator[tuple[str, str]]:
        """Tables that stand twice, and sizes that are not one for each level."""
        yield from super().problems(config)
        if len(set(self.tables)) < len(self.tables):
            yield "tables", f"names something twice: {self.tables}"
        if len(self.sizes) != self.levels or min(self.sizes) < 2 or max(self.sizes) > MOST_CODES:
            yield (
                "codes",
                f"{shown_value(self.codes)} is not a number above 1 for each of {self.levels} levels "
                f"(at most {MOST_CODES:,})",
            )


SemanticIds = Annotated[QuantizerSettings, KindOf("quantizers")]
