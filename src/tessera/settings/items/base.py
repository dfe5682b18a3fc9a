"""How items enter a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tessera.settings.kinds import Kind, KindOf

if TYPE_CHECKING:
    from tessera.settings.backbones.base import BackboneSettings
    from tessera.settings.config import Config

OF_HIDDEN_LAYERS = "is of hidden layers of the adapter, and adapter: [] has none"
"""Why nothing reads what stands between them."""


class ItemSettings(Kind):
    """How items enter a backbone."""

    CHANGES_BACKBONE: ClassVar[bool] = False
    """Whether more than vectors of items enters: what has no backbone cannot read them."""

    TAKES_NEW: ClassVar[bool] = False
    """Whether items that came after training can be put behind the others (`ItemEncoder.add_items`)."""

    kind: str
    """Which kind it is."""

    def misfits(self, backbones: Mapping[str, BackboneSettings], config: Config) -> Iterator[tuple[str, str]]:
        """What does not fit the backbones that read the items, as (key, what is wrong)."""
        yield from ()


def written_out(items: Any) -> Any:
    """Short forms of a config, as they are written out: `ids`, `{table: NAME}`, `{semantic_ids: NAME}`."""
    if isinstance(items, str):
        return {"kind": items}
    if isinstance(items, Mapping) and "kind" not in items:
        kind = next((kind for kind in ("semantic_ids", "table") if kind in items), None)
        return {"kind": kind, **items} if kind else items
    return items


ItemEncoder = Annotated[ItemSettings, KindOf("items")]
