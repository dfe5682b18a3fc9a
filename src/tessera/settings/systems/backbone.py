"""Items under a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from tessera.settings.base import Seed, Settings
from tessera.settings.items.base import ItemEncoder
from tessera.settings.items.ids import IdItems
from tessera.settings.losses.base import Loss


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
