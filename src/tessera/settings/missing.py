"""Settings of an experiment in which items lose their picture or their text."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from pydantic import Field

from tessera.settings.base import Settings

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")
"""In the order of their random numbers: one that comes new comes last."""

Pattern = Literal["item_consistent", "one_modality", "feature", "same_rate", "whole_modality", "same_steps", "block"]
"""How losses are drawn. Of items, the same in every history: `item_consistent` (each modality for itself), and
`one_modality` (an affected item loses exactly one of them, uniformly drawn: I3-MRec). Of histories: `feature` (every
position and modality for itself), `same_rate` (the same, at one rate for all modalities), `whole_modality` (a history
loses all of a modality), `same_steps` (all modalities at the same positions) and `block` (all modalities over a
contiguous stretch): CIDer."""
ITEM_PATTERNS: frozenset[Pattern] = frozenset({"item_consistent", "one_modality"})


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
