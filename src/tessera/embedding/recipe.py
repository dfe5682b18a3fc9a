"""What a recipe is: an object with the rows of an item table, and with a training before them where it learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tessera.settings.language import ItemPrompt, ReadText

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel
    from tessera.training.machine import Machine


Items = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


class Rows(NamedTuple):
    """Rows of an item table before they are finished."""

    items: Items
    """(n,) ids of the items, ascending; an item may have several rows."""
    vectors: Vectors
    """(n, width)."""
    names: list[str] | None = None
    """(n,) what each row is called, where an item has several."""


@dataclass(frozen=True)
class Given:
    """What a recipe works with, every name resolved."""

    start: ReadText
    """What is read of each item: the recipe itself, or the recipe that it goes on from."""
    prompt: ItemPrompt
    """How an item is told."""
    model: LanguageModel
    """The language model; a recipe may change it."""
    catalogue: Path
    """items.parquet."""
    captions: Mapping[str, Path] = field(default_factory=dict)
    """Captions by name."""
    embedder: Path | None = None
    """Weights of a trained recipe: what embeds, or what a training starts from."""
    state: Path = Path("state")
    """Folder of what a killed run of `rows` goes on from, named by everything that the rows depend on."""


class Recipe(ABC):
    """A recipe for item tables."""

    def __init__(self, settings: Any, given: Given) -> None:
        self.settings = settings
        self.given = given

    @abstractmethod
    def rows(self) -> Rows:
        """The rows of every item that has what is read.

        Raises:
            ValueError: no item has, or the embedder was trained on another model.
        """

    def train(self, data: Path, output: Path, state: Path, machine: Machine) -> None:
        """Train the embedder: `output` (model.safetensors), model.json and history.jsonl beside it.

        Args:
            data: folder of the prepared dataset.
            output: path of the weights.
            state: folder of the resumable state.
            machine: device and processes.
        Raises:
            ValueError: there is nothing to learn from, or the loss is no longer a number.
        """
        raise NotImplementedError(f"recipe {self.settings.recipe} trains nothing")
