"""Settings of I3-MRec in sequential form."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import Width
from tessera.settings.systems.backbone_base import UnderBackbones
from tessera.settings.systems.i3_mrec_base import InvariantModalities


class I3MRecSystem(InvariantModalities, UnderBackbones):
    """Texts and pictures as environments of one preference, under any backbone (after I3-MRec, ACM MM 2025)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.i3_mrec:I3MRec"
    HISTORY_LOSSES: ClassVar[bool] = True
    PUBLISHED: ClassVar[str] = "tessera.recommenders.systems.i3_mrec_published:PublishedI3MRec"
    OFFICIAL: ClassVar[dict[str, Any]] = {**InvariantModalities.OFFICIAL, "dropout": 0.5}
    FREE: ClassVar[frozenset[str]] = UnderBackbones.FREE | {"detach", "pairs", "fitted_on", "divide"}
    recommender: Literal["i3_mrec"] = "i3_mrec"
    ids: Literal["residual", "environment", "none"] = "residual"
    """Where ID vectors enter: added to the fused ones; as one more environment, which every item has; or nowhere."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths between each table and item vectors; [] is one linear map, as published."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the fused vectors: none, since histories have the backbone's already; 0.5 as published."""

    @property
    def knows_ids(self) -> bool:
        """See `InvariantModalities.knows_ids`."""
        return self.ids == "environment"

    @model_validator(mode="after")
    def _modalities_learn(self) -> I3MRecSystem:
        alone = len(self.modalities) + self.knows_ids < 2
        if self.detach and not self.environment_weight and (self.invariance is None or alone):
            lacking = "and invariance " if self.invariance is None else "(a single table has no invariance) "
            raise ValueError(
                f"detach: without environment_weight {lacking}nothing would train the modalities; set it to false"
            )
        return self

    def remarks(self) -> list[str]:
        """The published system has no order in time."""
        return ["the sequential form of a system published for unordered histories"]
