"""What click-through models share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tessera.settings.base import ASIDE, Seeds, Width
from tessera.settings.kinds import Kind, KindOf

OF_CODES = ("code_dim", "start", "combine")
"""Keys of the vectors of semantic IDs."""


class ClickModel(Kind):
    """What all click-through models share: item vectors and the network on top."""

    model: str
    """What reads the history."""
    attends: ClassVar[bool] = False
    """Whether it attends to all events that it reads."""
    retrieves: ClassVar[bool] = False
    """Whether it retrieves a few events, which can be compared with attention to all."""
    BY_CATEGORY: ClassVar[bool] = False
    """Whether it finds events by the category of their item, and none without."""
    READS_CONTENT: ClassVar[bool] = False
    """Whether it reads texts and pictures of items."""
    seeds: Annotated[Seeds | None, ASIDE] = None
    """Only these seeds; null takes the experiment's."""
    dim: Width = 16
    """Width of the vector of an item id."""
    category_dim: int = Field(16, ge=0, le=2**16)
    """Width of the vector of a category; 0 reads no categories."""
    read_codes: bool = False
    """Item vectors also hold those of the item's semantic ID: what R2LED knows of items, for fair comparisons."""
    counts: bool = False
    """The logit also has a part told by how many events of the whole history are of the target's item and of its
    category and, where codes are read, share each of its prefixes: what R2LED's `histogram` knows, for fair
    comparisons."""
    code_dim: Width = 16
    """Width of code vectors where no codebook gives it."""
    start: Literal["codebooks", "random"] = "codebooks"
    """Code vectors start as the quantiser's codebooks, or at random."""
    combine: Literal["sum", "concat"] = "concat"
    """Add the vectors of the levels, or lay them side by side."""
    hidden: list[Width] = Field(default_factory=lambda: [200, 80])
    """Hidden widths of the network that scores target and interests."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in that network."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of semantic IDs that are not read."""
        yield from super().unread()
        if not self.read_codes:
            yield "is of semantic IDs, which are not read without read_codes: true", OF_CODES


CTRModel = Annotated[ClickModel, KindOf("clicks")]
