"""What quantisers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from tessera.settings.base import Settings
from tessera.settings.kinds import KindOf

_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1}


_ONE_OR_MORE = WithJsonSchema({"anyOf": [_NAMES, {"type": "string"}]})


Conflicts = Literal["none", "extra_level", "nearest", "sinkhorn"]


class Codes(Settings):
    """What every quantiser may say."""

    tables: Annotated[list[str], _ONE_OR_MORE] = Field(min_length=1)
    """Names under `tables`; one name may stand alone. Several are laid side by side, each scaled to the same size."""
    levels: int = Field(3, ge=1, le=1000)
    """Codes an item: residual levels, or subspaces of product quantisation."""
    codes: int | list[int] = 256
    """Codes to choose from at a level; a list says it for every level."""
    conflicts: Conflicts = "nearest"
    """Items with the same codes: left so (none), told apart by one more code (extra_level), or moved to another code
    of the last level: the cheapest within their prefix (nearest), or by optimal transport (sinkhorn, LC-Rec)."""
    seed: int = Field(1, ge=0)
    """Seed of the first codebooks."""

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


SemanticIds = Annotated[QuantizerSettings, KindOf("quantizers")]
