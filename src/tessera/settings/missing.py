"""Settings of an experiment in which items lose their picture or their text."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from pydantic import Field

from tessera.settings.base import Settings

Modality = Literal["image", "text"]


class Missing(Settings):
    """Items lose their picture or their text at random, as if they had never had one: no table that was made from it
    has a row of them."""

    image: float = Field(0.0, ge=0, le=1)
    """Share of the items that lose their picture."""
    text: float = Field(0.0, ge=0, le=1)
    """Share of the items that lose their text."""
    when: Literal["training", "test", "both"] = "both"
    """Lost while training, when the run is judged (validation included), or always."""
    seed: int = Field(0, ge=0)
    """Which items: those that lose something at one share also lose it at every higher one."""

    @property
    def shares(self) -> dict[Modality, float]:
        """By modality."""
        return {"image": self.image, "text": self.text}

    @property
    def remark(self) -> str:
        """What stands beside every number that was measured so."""
        parts = [
            f"{share:.0%} of the {'pictures' if name == 'image' else 'texts'}"
            for name, share in self.shares.items()
            if share
        ]
        when = {"training": ", in training", "test": ", when judged", "both": ""}[self.when]
        return f"without {' and '.join(parts)}{when}"

    def touches(self, made_from: Iterable[Collection[str]]) -> bool:
        """Whether any table loses a row, by what each is made from."""
        lost = {modality for modality, share in self.shares.items() if share}
        return any(lost & set(modalities) for modalities in made_from)
