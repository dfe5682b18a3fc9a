"""What every backbone may say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tessera.settings.base import ASIDE
from tessera.settings.kinds import Kind, KindOf
from tessera.settings.training import override_problems

if TYPE_CHECKING:
    from tessera.settings.config import Config


class BackboneSettings(Kind):
    """What every backbone may say besides its own shape."""

    FREE: ClassVar[frozenset[str]] = frozenset({"training", "preset"})
    kind: str
    """Which kind it is."""
    dim: int = Field(64, ge=1)
    """Width of item vectors and hidden states."""
    training: Annotated[dict[str, Any], ASIDE] = Field(default_factory=dict)
    """Keys of `training` that differ for this backbone."""

    @property
    def causal_states(self) -> bool:
        """Whether the state at a position has seen that position and those before it, and no other."""
        return True

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also keys of `training` that are none, and heads that do not divide the width."""
        yield from super().problems(config)
        yield from override_problems(config.training, self.training)
        heads = getattr(self, "heads", 1)
        if self.dim % heads:
            yield "heads", f"{heads} does not divide dim {self.dim}"


Backbone = Annotated[BackboneSettings, KindOf("backbones")]
