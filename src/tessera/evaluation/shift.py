"""Test sets that differ from training: which test users belong to each, and which to the set beside it that does not.

A set is drawn once from the users that are judged anyway, and kept in a file: it is the same for all systems and seeds,
and nothing is trained or ranked for it. `shifted.py` reads the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tessera.data.cleaning import midnight
from tessera.data.dataset import NO_TIME, SPLITS, TRAIN, Dataset
from tessera.settings.shift import PopularityShift, Shift, TemporalShift


class Drawn(NamedTuple):
    """A test set that differs from training, and the one that it is compared with."""

    shifted: np.ndarray
    """(cases,) bool."""
    natural: np.ndarray
    """(cases,) bool."""
    facts: dict[str, Any]
    """What a reader is told of them."""


def members(
    dataset: Dataset, shifts: Mapping[str, Shift], cold: bool, repeats: bool, judged: np.ndarray | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of the artifact `shifts`, and what is told of each set, by name.

    Args:
        shifts: the sets, by name.
        cold: whether users with a cold target count at all (not under `cold_targets: drop`).
        repeats: whether users count whose target stands in their history (not under `repeat_targets: drop`).
        judged: the users that are judged; None where all are.
    Raises:
        ValueError: a set cannot be made of this dataset; names its key.
    """
    cases = dataset.cases("test")
    among = np.ones(len(cases), bool) if judged is None else np.isin(cases.users, judged)
    popularity = dataset.train_counts[cases.targets]
    counted = among & (cold | (popularity > 0)) & (repeats | ~cases.repeats)
    parts, facts = [], {}
    for name, shift in shifts.items():
        try:
            drawn = (
                by_popularity(shift, cases.users, cases.targets, dataset.train_counts, counted)
                if isinstance(shift, PopularityShift)
                else by_time(shift, dataset, counted)
            )
        except ValueError as error:
            raise ValueError(f"evaluation.shift.{name}: {error}") from None
        facts[name] = {
            **drawn.facts,
            "median_popularity": _of_both(drawn, lambda chosen: float(np.median(popularity[chosen]))),
            "cold_share": _of_both(drawn, lambda chosen: float((popularity[chosen] == 0).mean())),
        }
        columns = {"user": cases.users[among], "shifted": drawn.shifted[among], "natural": drawn.natural[among]}
        parts.append(pa.table({"shift": pa.array([name] * int(among.sum()), pa.string()), **columns}))
    return pa.concat_tables(parts), facts


def _of_both(drawn: Drawn, measure: Callable[[np.ndarray], float]) -> list[float]:
    """Of the shifted set, and of the other."""
    return [measure(drawn.shifted), measure(drawn.natural)]


def by_popularity(
    shift: PopularityShift, users: np.ndarray, targets: np.ndarray, counts: np.ndarray, counted: np.ndarray
) -> Drawn:
    """Draw users by the popularity of their target; beside them all users stand, as they come.

    A user's lot depends on its id and the seed alone.

    Args:
        users: (cases,) ids.
        targets: (cases,) item ids.
        counts: (items + 1,) training interactions an item.
        counted: (cases,) bool, who may be drawn; cold targets never are.
    Raises:
        ValueError: there are too few users, or all groups of items but one have no target.
    """
    warm = np.flatnonzero(counted & (counts[targets] > 0))
    lots = np.random.default_rng(shift.seed).gumbel(size=int(users.max(initial=0)) + 1)[users[warm]]
    if shift.draw == "inverse":
        # the largest of log-weight plus Gumbel noise: a weighted draw without replacement (Efraimidis 2006)
        size = round(shift.share * len(warm))
        if not 0 < size < len(warm):
            raise ValueError(f"share {shift.share:g} of {len(warm)} test users draws {size}, expected some but not all")
        keys = lots - shift.power * np.log(counts[targets[warm]])
        chosen = warm[np.argsort(-keys, kind="stable")[:size]]
        facts: dict[str, Any] = {"draw": "inverse", "power": shift.power}
    else:
        bins = equal_bins(counts, shift.bins)[targets[warm]]
        sizes = np.bincount(bins, minlength=shift.bins)
        filled = np.flatnonzero(sizes)
        if len(filled) < 2:
            raise ValueError(f"the targets of all {len(warm)} test users are of one of {shift.bins} bins; ask for more")
        order = np.lexsort((-lots, bins))
        place = np.arange(len(warm)) - np.concatenate([[0], np.cumsum(sizes)])[bins[order]]
        chosen = warm[order[place < sizes[filled].min()]]
        facts = {"draw": "bins", "bins": shift.bins, "filled": len(filled)}
    return Drawn(
        _mask(len(users), chosen), _mask(len(users), warm), {"kind": "popularity", "seed": shift.seed, **facts}
    )


def equal_bins(counts: np.ndarray, bins: int) -> np.ndarray:
    """(items + 1,) group of as many items each, 0 of the most popular; -1 of items without a training interaction.

    Groups of equal interactions (`groups.item_groups`) would be no shift: targets fall into them as training does.
    """
    warm = np.flatnonzero(counts[1:] > 0) + 1
    order = warm[np.argsort(-counts[warm], kind="stable")]
    group = np.full(len(counts), -1)
    group[order] = np.arange(len(order)) * bins // max(1, len(order))
    return group


def by_time(shift: TemporalShift, dataset: Dataset, counted: np.ndarray) -> Drawn:
    """Test users whose target is not before the cut, and those whose target is; nobody whose target has no time.

    Args:
        counted: (cases,) bool, who counts.
    Raises:
        ValueError: no target has a time, a day is asked of times that are none, or all targets are on one side.
    """
    times = dataset.timestamps[dataset.split == SPLITS.index("test")]
    timed = counted & (times != NO_TIME)
    if not timed.any():
        raise ValueError("'temporal' needs times, but no test target of the dataset has one; use kind popularity")
    known, clock = np.sort(times[timed]), dataset.clock
    if isinstance(shift.after, str):
        cut = midnight(shift.after, clock)
    else:
        cut = int(known[len(known) - max(1, round(shift.after * len(known)))])
    shifted, natural = timed & (times >= cut), timed & (times < cut)
    if not (shifted.any() and natural.any()):
        raise ValueError(
            f"a cut at {clock.text(cut)} leaves {'no later' if natural.any() else 'no earlier'} target; those with a "
            f"time are from {clock.text(int(known[0]))} to {clock.text(int(known[-1]))}"
        )
    trained = dataset.timestamps[dataset.split == TRAIN]
    trained = trained[trained != NO_TIME]
    facts = {
        "kind": "temporal",
        "cut": clock.text(cut),
        "trained_after": float((trained >= cut).mean()) if len(trained) else 0.0,
        "training_ends": clock.text(int(trained.max())) if len(trained) else "",
        "without_time": int((counted & (times == NO_TIME)).sum()),
    }
    return Drawn(shifted, natural, facts)


def _mask(size: int, chosen: np.ndarray) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[chosen] = True
    return mask
