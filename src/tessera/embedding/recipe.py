"""What a recipe is: an object with the rows of an item table, and with a program of training where it learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tessera.artifacts.interests import Interest
from tessera.language.models import load_model
from tessera.settings.language import ItemPrompt

if TYPE_CHECKING:
    from torch import nn

    from tessera.embedding.embedder import Embedder
    from tessera.language.models import LanguageModel
    from tessera.training.machine import Machine
    from tessera.training.phases import Phase


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
    interests: Sequence[Interest] | None = None
    """(n,) what each row is of, where the rows are of users: `items` are then their ids."""
    counts: Mapping[str, int] | None = None
    """What is told beside such rows."""


@dataclass(frozen=True)
class Given:
    """What a recipe works with, every name resolved."""

    prompt: ItemPrompt
    """How an item is told."""
    model: Any
    """What `Recipe.open_model` gave: a language model, mostly; a recipe may change it."""
    catalogue: Path
    """items.parquet."""
    captions: Mapping[str, Path] = field(default_factory=dict)
    """Captions by name."""
    data: Path = Path()
    """Folder of the prepared dataset, for recipes that learn from histories."""
    embedder: Path | None = None
    """Weights of a trained recipe: what embeds, or what a training starts from."""
    state: Path = Path("state")
    """Folder of what a killed run of `rows` goes on from, named by everything that the rows depend on."""
    writer: LanguageModel | None = None
    """A second model, which writes what the first reads; None where the first does both, or nothing is written."""
    answers: Path = Path("answers")
    """Folder of what was answered so far, named by everything that answers depend on but the question."""


class Recipe(ABC):
    """A recipe for item tables."""

    def __init__(self, settings: Any, given: Given, start: Recipe | None = None) -> None:
        """
        Args:
            settings: of the table.
            given: what it works with.
            start: the recipe whose embedder it goes on from, over the same things; None where it starts from itself.
        """
        self.settings = settings
        self.given = given
        self.start = start

    @classmethod
    def open_model(cls, table: Any, model: Any, folder: Path | None) -> Any:
        """What reads the items: a language model, unless a recipe says otherwise.

        Args:
            table: settings of the table.
            model: settings of its model.
            folder: where a built model was written.
        Raises:
            ValueError: it is not there, or cannot be used so.
        """
        return load_model(model, folder)

    def check_model(self) -> None:
        """Refuse a model that cannot be read as the recipe reads it, before anything is made; by itself, none.

        It changes nothing: neither the model nor what is drawn later.

        Raises:
            ValueError: it cannot be read so.
        """
        return

    @abstractmethod
    def rows(self) -> Rows:
        """The rows of every item that has what is read.

        Raises:
            ValueError: no item has, or the embedder was trained on another model.
        """


class TrainedRecipe(Recipe):
    """A recipe that trains an embedder, with which it then embeds; `embedding/tune.py` trains it."""

    @abstractmethod
    def begin(self, machine: Machine) -> nn.Module:
        """What is trained, made ready; called once, before `program`.

        Raises:
            ValueError: there is nothing to learn from.
        """

    @abstractmethod
    def program(self) -> list[Phase]:
        """The phases of the training."""

    @abstractmethod
    def trained(self, history: list[dict[str, Any]]) -> Embedder:
        """What is to be written, after the last phase; all processes ask for it.

        Args:
            history: rows of the curve, to which numbers may be added.
        """
