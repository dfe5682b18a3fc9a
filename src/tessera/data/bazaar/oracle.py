"""The oracle: what the process itself expects next, item by item.

It knows more than any recommender can: the tastes a user holds at that very step and the one in focus. So its metrics
are a ceiling, not a goal that a model trained on histories could reach.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tessera.artifacts.tables import TRUTH, ArtifactError, describe, read_table
from tessera.data.bazaar.generate import read_settings
from tessera.data.bazaar.histories import next_item_probabilities
from tessera.data.bazaar.world import INTERESTS, build_world
from tessera.settings.base import did_you_mean


class Oracle:
    """True next-item probabilities at any step of any user whose truth was kept.

    An item never comes twice to a user, so a user and the item that came name the step, whatever cleaning and splits
    did to positions since. Items that cleaning took away are left out and the rest is scaled to sum to 1.
    """

    def __init__(self, truth: str | Path, raw_users: list[str], raw_items: list[str]) -> None:
        """Rebuild the world from the settings in the metadata of `truth`.

        Args:
            truth: `truth.parquet` of the raw data.
            raw_users, raw_items: raw ids by dense id, position 0 unused.
        Raises:
            ArtifactError: `truth` is not such a file, or an item is not of its world.
        """
        table = read_table(truth, "truth", TRUTH.names).sort_by([("user", "ascending"), ("position", "ascending")])
        self.path = truth
        self.world = build_world(read_settings(describe(truth)))
        place = {raw: index for index, raw in enumerate(self.world.raw_ids())}
        unknown = next((raw for raw in raw_items[1:] if raw not in place), None)
        if unknown is not None:
            raise ArtifactError(f"{truth}: item {unknown!r} is not of this world{did_you_mean(unknown, place)}")
        self.item_numbers = np.array([place[raw] for raw in raw_items[1:]], np.int64)
        """(items,) index in the world of each dense id 1..items."""
        users, starts = np.unique(table.column("user").to_numpy(zero_copy_only=False), return_index=True)
        ends = np.append(starts, table.num_rows)[1:]
        bounds = dict(zip(users.tolist(), zip(starts, ends, strict=True), strict=True))
        self._rows = {dense: bounds[raw] for dense, raw in enumerate(raw_users) if raw in bounds}
        self._items = np.array([place[raw] for raw in table.column("item").to_pylist()], np.int64)
        self._times = table.column("timestamp").to_numpy()
        self._tastes, self._weights = (
            table.column(name).combine_chunks().flatten().to_numpy().reshape(-1, INTERESTS)
            for name in ("tastes", "weights")
        )

    def knows(self, users: np.ndarray) -> np.ndarray:
        """Whether the truth of each (dense) user was kept, (n,) bool."""
        return np.array([int(user) in self._rows for user in users], bool)

    def probabilities(self, user: int, target: int) -> np.ndarray:
        """p(next item given the state before `target` came to `user`), (items,) float64, column i for dense item i + 1.

        Raises:
            ArtifactError: the truth of the user was not kept, or the item never came to it.
        """
        if user not in self._rows:
            raise ArtifactError(f"{self.path}: no truth of user {user}; raise `oracle_users`")
        begin, end = self._rows[user]
        history = self._items[begin:end]
        steps = np.flatnonzero(history == self.item_numbers[target - 1])
        if not len(steps):
            raise ArtifactError(f"{self.path}: item {target} never came to user {user}")
        step = int(steps[0])
        row = begin + step
        previous = int(history[step - 1]) if step else None
        state = self._tastes[row], self._weights[row], previous, history[:step], int(self._times[row])
        every = next_item_probabilities(self.world, *state)
        kept = every[self.item_numbers]
        return np.asarray(kept / kept.sum())
