"""Items as rows of a table behind an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from tessera.settings.base import PresetSettings, Width
from tessera.settings.items.base import OF_HIDDEN_LAYERS, ItemSettings
from tessera.settings.references import RunReference, TableName

if TYPE_CHECKING:
    from tessera.settings.backbones.base import BackboneSettings
    from tessera.settings.config import Config


class Alignment(RunReference):
    """Draws adapted item vectors towards those of a trained ID run: recommendation adaptation training of LLMEmb."""

    weight: float = Field(0.01, gt=0)
    """Weight of the alignment beside the loss of the recommender."""
    temperature: float = Field(2.0, gt=0)
    """Temperature of the contrastive loss; fixed."""
    deduplicate: bool = True
    """An item that is a target several times counts once; otherwise it is a negative of itself, as published."""
    normalize: bool = False
    """Cosines instead of dot products."""
    target_temperature: Literal["divide", "multiply"] = "divide"
    """The targets' temperature divides, or multiplies, as in the published code."""


class TableItems(PresetSettings, ItemSettings):
    """A frozen item table behind a trainable adapter."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.item_encoders.table:TableItemEncoder"
    FREE: ClassVar[frozenset[str]] = frozenset({"align", "preset"})
    TAKES_NEW: ClassVar[bool] = True
    OFFICIAL: ClassVar[dict[str, Any]] = {"activation": "none", "standardize": False, "shift_last_item": True}
    kind: Literal["table"] = "table"
    table: TableName
    """Name under `tables`."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths of the adapter; [] is one linear map."""
    activation: Literal["gelu", "none"] = "gelu"
    """Between the layers of the adapter; none as in LLMEmb's and ReaEmb's code, which makes it one linear map."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the adapter."""
    standardize: bool = True
    """Centre the table and scale it to unit mean square before the adapter."""
    id_residual: bool = False
    """Add a trainable ID vector to the adapted one."""
    shift_last_item: bool = False
    """Zero the last item's vector, as an off-by-one in the published code does."""
    align: Alignment | None = None
    """Also align the adapted vectors with those of a trained ID run (LLMEmb); null does not."""

    @model_validator(mode="before")
    @classmethod
    def _official_alignment(cls, data: Any, info: ValidationInfo) -> Any:
        """The published habits of the alignment, where there is one: the preset does not switch it on."""
        if cls._wants_official(data, info) and isinstance(data.get("align"), Mapping):
            return {**data, "align": {"deduplicate": False, "target_temperature": "multiply", **data["align"]}}
        return data

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of an adapter of one layer."""
        yield from super().unread()
        if not self.adapter:
            yield OF_HIDDEN_LAYERS, ("activation", "dropout")

    def misfits(self, backbones: Mapping[str, BackboneSettings], config: Config) -> Iterator[tuple[str, str]]:
        """Vectors are aligned with those of a run of the same width."""
        teacher = config.backbones.get(self.align.backbone) if self.align is not None else None
        if self.align is None or teacher is None:
            return
        for name, backbone in backbones.items():
            if backbone.dim != teacher.dim:
                yield "align", f"dim {backbone.dim} of {name!r} differs from {teacher.dim} of {self.align.backbone!r}"
