"""Items as the vectors of their codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tessera.settings.base import Width
from tessera.settings.items.base import OF_HIDDEN_LAYERS, ItemSettings
from tessera.settings.references import CodesName, TableName, unread_of_vectors

if TYPE_CHECKING:
    from tessera.settings.config import Config


class SemanticIdItems(ItemSettings):
    """Items as the vectors of their codes, level by level, with or without the raw table beside them."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.item_encoders.semantic_ids:SemanticIdEncoder"
    FREE: ClassVar[frozenset[str]] = frozenset({"start"})
    kind: Literal["semantic_ids"] = "semantic_ids"
    semantic_ids: CodesName
    """Name under `semantic_ids`."""
    combine: Literal["sum", "concat"] = "sum"
    """Add the vectors of the levels, or lay them side by side, before the adapter."""
    start: Literal["codebooks", "random"] = "codebooks"
    """Code vectors start as the quantiser's codebooks, or at random."""
    code_dim: Width = 64
    """Width of code vectors where no codebook gives it."""
    table: TableName | None = None
    """Name under `tables`: a frozen table read beside the codes."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths between code vectors (and table) and item vectors; [] is one linear map."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the adapter."""
    id_residual: bool = False
    """Add a trainable ID vector."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of an adapter of one layer."""
        yield from super().unread()
        if not self.adapter:
            yield OF_HIDDEN_LAYERS, ("dropout",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also keys that these codes leave without a say."""
        yield from super().problems(config)
        yield from unread_of_vectors(config.semantic_ids[self.semantic_ids], True, self)
