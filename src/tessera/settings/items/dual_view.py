"""Items as two views that read each other (DMESR)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tessera.settings.base import Settings, Width
from tessera.settings.items.base import OF_HIDDEN_LAYERS, ItemSettings
from tessera.settings.references import SeveralRowsTableName, TableName

if TYPE_CHECKING:
    from tessera.settings.backbones.base import BackboneSettings
    from tessera.settings.config import Config


class ViewAlignment(Settings):
    """Contrastive alignment of what a multimodal model says of an item's picture and of its text (DMESR)."""

    weight: float = Field(0.1, gt=0)
    """Weight beside the loss of the recommender."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of the contrastive loss; fixed."""
    dim: Width = 64
    """Width of the space in which the two are compared."""
    anchor: bool = False
    """Also draw both towards what is said of picture and text together."""


class DualViewItems(ItemSettings):
    """Two views of an item, fused by cross-attention: what a multimodal model says of it, and its text (DMESR)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.item_encoders.dual_view:DualViewEncoder"
    CHANGES_BACKBONE: ClassVar[bool] = True
    kind: Literal["dual_view"] = "dual_view"
    image: TableName | None = None
    """Name under `tables`: what a model says of the picture alone."""
    text: TableName | None = None
    """Name under `tables`: what a model says of the text alone."""
    both: TableName | None = None
    """Name under `tables`: what a model says of picture and text together."""
    fine: SeveralRowsTableName | None = None
    """Name of a table of recipe `attributes`: the text itself, a vector an attribute."""
    alignment: ViewAlignment | None = Field(default_factory=ViewAlignment)
    """Contrastive alignment of `image` and `text`, where there are both; null leaves it out."""
    fusion: Literal["attention", "concat"] = "attention"
    """How a view reads the other: cross-attention, or the other's mean laid beside its own."""
    direction: Literal["both", "coarse", "fine"] = "both"
    """Which view reads the other: each (bidirectional), what the model says (coarse), or the text (fine)."""
    axis: Literal["item", "sequence"] = "item"
    """Views read each other within an item, or along the history (LLM-ESR), where a position sees none after it."""
    heads: int = Field(2, ge=1, le=2**16)
    """Heads of the cross-attention."""
    width: Width = 64
    """Width of the projected vectors that are fused."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths between a fused view and its part of the item vector; [] is one linear map."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the adapters."""
    combine: Literal["concat", "gated_sum"] = "concat"
    """Two views of half the width side by side, or two of full width in a learned mixture."""
    backbone: Literal["joint", "shared", "separate"] = "joint"
    """One backbone reads both views at once; the same one of half the width reads each (LLM-ESR); or one for each."""

    @property
    def coarse(self) -> dict[str, str]:
        """The tables of what a model says, by what it was shown."""
        named = {"image": self.image, "text": self.text, "both": self.both}
        return {shown: table for shown, table in named.items() if table is not None}

    @property
    def tables(self) -> list[str]:
        """All tables that are read, each once."""
        return list(dict.fromkeys([*self.coarse.values(), *([self.fine] if self.fine else [])]))

    @property
    def views(self) -> int:
        """How many views an item has: two, or one where the other has no table."""
        return bool(self.coarse) + bool(self.fine)

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "missing" in data:
            message = "'{key}' stands beside 'items' now, for systems of every kind: systems.NAME.missing"
            raise PydanticCustomError("unknown_key", message, {"key": "missing"})
        return data

    @model_validator(mode="after")
    def _fits(self) -> DualViewItems:
        if not self.views:
            raise ValueError("needs a table: one of image, text, both and fine at least")
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        if self.views < 2 and (self.axis, self.combine, self.backbone) != ("item", "concat", "joint"):
            raise ValueError("axis, combine and backbone say what becomes of two views, but tables give only one")
        if self.combine == "gated_sum" and (self.axis, self.backbone) != ("item", "joint"):
            raise ValueError("combine: gated_sum makes one vector of the views: axis must be item, backbone joint")
        if self.axis == "sequence" and (self.backbone, self.fusion) != ("joint", "attention"):
            raise ValueError("axis: sequence needs backbone joint and fusion attention")
        if self.axis == "sequence" and self.direction != "both":
            raise ValueError(f"direction {self.direction} is for axis item; along the history both views read")
        if self.alignment is not None and self.alignment.anchor and self.both is None:
            raise ValueError("alignment.anchor draws image and text to both, which names no table")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of two views, or of picture and text, where tables give one."""
        yield from super().unread()
        if self.alignment is not None and not {"image", "text"} <= self.coarse.keys():
            yield "brings `image` and `text` together, and one of them names no table", ("alignment",)
        if self.views < 2:
            yield "says how two views read each other, and tables give one", ("fusion", "direction", "heads")
        elif self.fusion == "concat":
            yield "is of cross-attention, and fusion: concat has none", ("heads",)
        if not self.adapter:
            yield OF_HIDDEN_LAYERS, ("dropout",)

    def misfits(self, backbones: Mapping[str, BackboneSettings], config: Config) -> Iterator[tuple[str, str]]:
        """Two views share a width, and heads divide their halves."""
        if self.views < 2 or self.combine != "concat":
            return
        for name, backbone in backbones.items():
            heads = self.heads if self.axis == "sequence" else getattr(backbone, "heads", 1)
            heads = 1 if (self.axis, self.backbone) == ("item", "joint") else heads
            if backbone.dim % (2 * heads):
                yield "", f"half of dim {backbone.dim} of {name!r} must be a multiple of {heads} heads"

    def remarks(self) -> list[str]:
        """No code was published."""
        return ["a reconstruction: its code was not published"]
