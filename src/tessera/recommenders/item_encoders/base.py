"""The one door through which items enter a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.missing import Present
from tessera.settings.backbones.base import BackboneSettings


class View(NamedTuple):
    """A table as an encoder reads it."""

    table: str
    """Its name under `tables`."""
    present: Present
    """Which rows there are."""
    rows: Callable[[Tensor], Tensor]
    """(n, width) what the table says of items (n,), at unit mean square; of an item without a row, nothing to read."""


class ItemEncoder(nn.Module, ABC):
    """Makes the vectors of all items once a step, for the histories and for the scores alike."""

    shared: dict[str, Tensor] | None = None
    """While `sharing`, what does not depend on the rows that are there, by name."""

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, inputs: RunInputs, items: int, dim: int) -> Self:
        """The encoder that settings describe, with the files that it reads, for vectors of width `dim`."""

    @classmethod
    def backbone(cls, settings: Any, backbone: BackboneSettings, kind: Any) -> Backbone:
        """The backbone as the items enter it; `kind` makes one from its settings."""
        made: Backbone = kind(backbone)
        return made

    @abstractmethod
    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors; row 0 is the padding."""

    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Put items behind those that training knew, by what tables say of them; asked where the settings have
        `TAKES_NEW`.

        Args:
            tables: by name, vectors (new, width) as the table has them and present (new,).
        Raises:
            ValueError: only training tells it what an item is.
        """
        raise ValueError(f"{type(self).__name__} knows no item but by training on it")

    def item_rows(self) -> Collection[str]:
        """Names, in `state_dict`, of what has a row an item, (items + 1, ...); empty where nothing has.

        Raises:
            ValueError: it does not say, so no run can go on from another of other items.
        """
        raise ValueError(f"{type(self).__name__} does not say which of its weights have a row an item (`item_rows`)")

    def views(self) -> Mapping[str, View]:
        """The tables that it reads, by a name; empty where an item is known by nothing that it could lose."""
        return {}

    def known(self, met: Tensor) -> Tensor:
        """(items + 1,) of which items the vectors say something for now, once training is over.

        Args:
            met: (items + 1,) bool, items of training histories: a vector of an item's own has learned nothing else.
        """
        return met

    def some(self, items: Tensor) -> Tensor:
        """(n, dim) vectors of items (n,): what `forward` gives there, without the others where that is cheaper."""
        vectors: Tensor = self()[items]
        return vectors

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """While this lasts, what does not depend on the rows that are there is made once; weights must stand still."""
        self.shared = {}
        try:
            yield
        finally:
            self.shared = None

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives; while `sharing`, made at the first call alone."""
        if self.shared is None:
            return make()
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    @contextmanager
    def without(self, names: Collection[str]) -> Iterator[None]:
        """While this lasts, no item has a row of these `views`."""
        views = self.views()
        try:
            for name, view in views.items():
                view.present.away = name in names
            yield
        finally:
            for view in views.values():
                view.present.away = False

    def auxiliary_losses(self, vectors: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Losses of its own, by name, that are added to the mean loss of a step.

        Args:
            vectors: (items + 1, dim) what `forward` gave.
            targets: (targets,) item ids that the step predicts.
        """
        return {}
