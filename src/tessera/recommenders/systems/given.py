"""Scores that another program made, judged like every other system's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tessera.data.dataset import Cases, Dataset, read_raw_ids
from tessera.data.scores import read_scores
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import masked_cases
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Fixed
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run
from tessera.settings.systems.given import GivenSystem

# cases whose lists are compared with histories at once
_CASES = 20_000


class Given(Fixed):
    """Scores items by the order of a file; those that it does not name for a user come behind all others."""

    max_history = 1
    unscored = 0.0

    @classmethod
    def make(cls, run: Run, dataset: Dataset, data: Path, inputs: RunInputs, folder: Path) -> dict[str, Tensor]:
        """See `Fixed.make`."""
        settings = run.method
        assert isinstance(settings, GivenSystem)
        if not inputs.source:
            raise ValueError(f"system {run.system!r} is judged by a file, but none was given")
        users, items = (read_raw_ids(data, kind) for kind in ("users", "items"))
        judged = [users[user] for user in dataset.cases("test").users]
        read = read_scores(settings, [Path(file) for file in inputs.source], users, items, judged, folder)
        arrays = {"offsets": read.offsets, "items": read.items, "levels": read.levels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {
            "catalogue": torch.tensor(dataset.n_items)
        }

    def __init__(self, settings: GivenSystem, tensors: Mapping[str, Tensor]) -> None:
        self.offsets, self.items, self.levels = (tensors[name] for name in ("offsets", "items", "levels"))
        self.count = int(tensors["catalogue"])

    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) scores: how many different scores of the user lie at or below the item's; 0 without a row."""
        rows, positions = self._rows(histories.users.numpy())
        scores = torch.zeros(len(histories), self.count)
        scores[torch.from_numpy(rows), self.items[positions].long() - 1] = self.levels[positions].float()
        return scores

    def _rows(self, users: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """For each item of the users' lists: the user's position in `users`, and the position in the lists."""
        offsets = self.offsets.numpy()
        starts, sizes = offsets[users], offsets[users + 1] - offsets[users]
        rows = np.repeat(np.arange(len(users)), sizes)
        positions = np.arange(len(rows)) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
        return rows, torch.from_numpy(positions)

    def remarks(self, cases: Cases, evaluation: Evaluation) -> list[str]:
        """Users without a row, and lists that are shorter than what is measured."""
        sizes = self.offsets.numpy()[cases.users + 1] - self.offsets.numpy()[cases.users]
        remarks = []
        if without := int((sizes == 0).sum()):
            share = f"{without:,} of {len(cases):,} test users ({without / len(cases):.1%})"
            remarks.append(f"no row for {share}, for whom all items tie")
        usable = sizes - self._hidden(cases, masked_cases(cases, evaluation))
        longest = evaluation.cutoffs[-1]
        short = (sizes > 0) & (sizes < self.count) & (usable < longest)
        if short.any():
            remarks.append(
                f"fewer than {longest} items that are not masked for {int(short.sum()):,} test users, the fewest "
                f"{int(usable[short].min())}; all others tie behind them"
            )
        return remarks

    def _hidden(self, cases: Cases, masked: np.ndarray) -> np.ndarray:
        """(cases,) how many items of a user's list the masks take out."""
        hidden = np.zeros(len(cases), np.int64)
        for start in range(0, len(cases), _CASES):
            chosen = np.flatnonzero(masked[start : start + _CASES]) + start
            if not len(chosen):
                continue
            rows, positions = self._rows(cases.users[chosen])
            width = self.count + 1
            listed = rows * width + self.items[positions].numpy()
            lengths = cases.lengths[chosen]
            flat = np.repeat(cases.offsets[chosen] - (np.cumsum(lengths) - lengths), lengths)
            owners = np.repeat(np.arange(len(chosen)), lengths)
            seen = owners * width + cases.items[np.arange(len(flat)) + flat]
            hidden[chosen] = np.bincount(rows[np.isin(listed, seen)], minlength=len(chosen))
        return hidden
