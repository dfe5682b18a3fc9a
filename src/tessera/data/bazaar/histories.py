"""How users walk through the shop: the process, drawn a step at a time for many users at once, and its probabilities.

A user holds up to `INTERESTS` tastes with weights. One of them is in focus; the focus moves, and now and then a taste
gives way to another. The next item comes from the tastes, from the successors of the item before, or from popularity
alone; an item never comes twice:

    p(i | state) ∝ [i not seen] · [i open] · (
         Σ_k share_k · taste_k(i) + share_follow · follows(i | j) + share_noise · weight(i) )
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera.data.bazaar.world import DAY, INTERESTS, NOISE_SHARE, OPENING, YEARS, World, stream
from tessera.settings.sources.bazaar import BazaarSource

CHUNK = 8192
"""Users drawn together. Part of the process: another value gives another world."""
FOCUS = 0.8
"""Share of the interests that goes to the one in focus."""
REFOCUS = 0.1
"""Probability, at every step, that the focus is drawn anew."""
SHORTEST = 5
LENGTH_SPREAD = 0.6
_ROUNDS = 12


@dataclass
class Histories:
    """Histories of a chunk of users, longest first, and the states that they came from.

    Attributes:
        user: number of each user in the world, (users,) int64.
        length: (users,) int64.
        items: (users, longest) int32, -1 after the end.
        tastes: state before each step, (users, longest, INTERESTS) int32; None unless recorded.
        weights: likewise, float64, each sums to 1.
        times: unix seconds of each step, (users, longest) int64.
    """

    user: np.ndarray
    length: np.ndarray
    items: np.ndarray
    tastes: np.ndarray | None = None
    weights: np.ndarray | None = None
    times: np.ndarray | None = None


def component_shares(settings: BazaarSource, weights: np.ndarray, first: bool) -> np.ndarray:
    """Shares of what a step comes from, (n, INTERESTS + 2): each taste, successors, noise.

    `weights` (n, INTERESTS) are those of the tastes. A first step follows no item.
    """
    shares = np.empty((len(weights), INTERESTS + 2))
    follow = 0.0 if first else settings.transitions
    shares[:, :INTERESTS] = (1 - follow) * (1 - NOISE_SHARE) * weights
    shares[:, INTERESTS] = follow
    shares[:, INTERESTS + 1] = (1 - follow) * NOISE_SHARE
    return shares


def next_item_probabilities(
    world: World,
    tastes: np.ndarray,
    weights: np.ndarray,
    previous: int | None,
    seen: np.ndarray,
    now: int | None = None,
) -> np.ndarray:
    """The true distribution of the next item given one user's state, (items,) float64.

    Args:
        tastes: (INTERESTS,) rows of the tastes.
        weights: (INTERESTS,).
        previous: the item before, None at the first step.
        seen: items that the user has had; they do not come again.
        now: unix seconds; items that open later cannot come. None: all are open.
    """
    shares = component_shares(world.settings, weights[None], previous is None)[0]
    chosen = shares[:INTERESTS] @ world.rows[tastes] + shares[-1] * world.weight
    if previous is not None:
        chosen[world.successors[previous]] += shares[INTERESTS] * world.successor_odds[previous]
    chosen[seen] = 0
    if now is not None:
        chosen[world.opens > now] = 0
    return np.asarray(chosen / chosen.sum())


class Sampler:
    """Draws from a world: its distributions, cumulated and laid end to end, are one sorted array to search."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._ends = _ends(world.rows)
        self._successor_ends = _ends(world.successor_odds)

    def draw(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One item from each of the given rows of the world, (n,) int32."""
        return _search(self._ends, rows, self.world.items, generator).astype(np.int32)

    def draw_successors(self, previous: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One item that follows each of the given items, (n,) int32."""
        width = self.world.successors.shape[1]
        return np.asarray(self.world.successors[previous, _search(self._successor_ends, previous, width, generator)])

    def step(
        self,
        tastes: np.ndarray,
        weights: np.ndarray,
        previous: np.ndarray | None,
        seen: np.ndarray,
        generator: np.random.Generator,
        now: np.ndarray | None = None,
    ) -> np.ndarray:
        """The next item of each user, (n,) int32; `now` (n,) unix seconds say what is open, None that all is.

        An item seen before, or not open yet, is drawn again, source and all: what is kept has exactly the
        probabilities of `next_item_probabilities`. The few that are still without an item after some rounds are drawn
        from those.
        """
        count = len(tastes)
        bounds = np.cumsum(component_shares(self.world.settings, weights, previous is None), axis=1)
        chosen = np.full(count, -1, np.int32)
        waiting = np.arange(count)
        for _ in range(_ROUNDS):
            before = None if previous is None else previous[waiting]
            candidates = self._candidates(tastes[waiting], bounds[waiting], before, generator)
            fresh = ~(seen[waiting] == candidates[:, None]).any(1)
            if now is not None:
                fresh &= self.world.opens[candidates] <= now[waiting]
            chosen[waiting[fresh]] = candidates[fresh]
            waiting = waiting[~fresh]
            if not len(waiting):
                return chosen
        for user in waiting:
            last = None if previous is None else int(previous[user])
            moment = None if now is None else int(now[user])
            odds = next_item_probabilities(self.world, tastes[user], weights[user], last, seen[user], moment)
            chosen[user] = generator.choice(self.world.items, p=odds)
        return chosen

    def _candidates(
        self, tastes: np.ndarray, bounds: np.ndarray, previous: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        point = generator.random(len(tastes)) * bounds[:, -1]
        source = (point[:, None] >= bounds[:, :-1]).sum(1)
        rows = np.full(len(tastes), len(self.world.rows) - 1)
        interest = source < INTERESTS
        rows[interest] = tastes[interest, source[interest]]
        drawn = self.draw(rows, generator)
        if previous is not None:
            follow = np.flatnonzero(source == INTERESTS)
            drawn[follow] = self.draw_successors(previous[follow], generator)
        return drawn


def _ends(odds: np.ndarray) -> np.ndarray:
    """Row r cumulated to r .. r + 1, all rows in one ascending array."""
    cumulative = np.cumsum(odds, axis=1)
    cumulative /= cumulative[:, -1:]
    cumulative += np.arange(len(cumulative))[:, None]
    return cumulative.ravel()


def _search(ends: np.ndarray, rows: np.ndarray, width: int, generator: np.random.Generator) -> np.ndarray:
    """A column of each of the given rows, drawn by its odds."""
    columns = np.searchsorted(ends, rows + generator.random(len(rows)), side="right") - rows * width
    return np.asarray(np.clip(columns, 0, width - 1))


def draw_histories(sampler: Sampler, chunk: int, record: bool = False) -> Histories:
    """The histories of one chunk of users; `record` keeps the state before each step."""
    settings = sampler.world.settings
    generator = stream(settings.seed, "users", chunk)
    user = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, settings.users))
    length = _draw_lengths(settings, len(user), generator, int((sampler.world.opens == 0).sum()))
    order = np.argsort(-length, kind="stable")
    user, length = user[order], length[order]
    tastes, base, focus = _draw_interests(settings, len(user), generator)
    longest = int(length[0])
    items = np.full((len(user), longest), -1, np.int32)
    histories = Histories(user, length, items)
    # the very times of the log, whose stream begins with them
    histories.times = draw_times(histories, stream(settings.seed, "log", chunk))
    if record:
        histories.tastes = np.zeros((len(user), longest, INTERESTS), np.int32)
        histories.weights = np.zeros((len(user), longest, INTERESTS))
    for step in range(longest):
        active = int(np.searchsorted(-length, -step, side="left"))  # users are sorted: the first ones walk on
        tastes, base, focus = tastes[:active], base[:active], focus[:active]
        _drift(settings, tastes, base, focus, generator)
        weights = (1 - FOCUS) * base
        weights[np.arange(active), focus] += FOCUS
        if histories.tastes is not None and histories.weights is not None:
            histories.tastes[:active, step] = tastes
            histories.weights[:active, step] = weights
        previous = items[:active, step - 1] if step else None
        items[:active, step] = sampler.step(
            tastes, weights, previous, items[:active, :step], generator, histories.times[:active, step]
        )
    return histories


def draw_times(histories: Histories, generator: np.random.Generator) -> np.ndarray:
    """Unix seconds of every step, (users, longest): bursts of minutes (some in the same second), then days."""
    count, longest = histories.items.shape
    start = OPENING + generator.integers(0, YEARS * 365 * DAY, (count, 1))
    burst = generator.random((count, longest), np.float32) < 0.5
    gap = generator.standard_exponential((count, longest), np.float32) * np.where(burst, 60, 12 * DAY)
    gap[:, 0] = 0
    return np.asarray(start + np.cumsum(gap.astype(np.int64), axis=1))


def _draw_lengths(settings: BazaarSource, count: int, generator: np.random.Generator, there: int) -> np.ndarray:
    """Log-normal lengths around the wanted mean; nobody has all items that are `there` from the start.

    Raises:
        ValueError: these are too few.
    """
    if there <= SHORTEST:
        raise ValueError(
            f"late: {settings.late:g} of {settings.items} items leaves {there} that are there from the start, and "
            f"everybody has {SHORTEST} or more; give more items, or open fewer of them late"
        )
    mean = np.log(settings.mean_history) - LENGTH_SPREAD**2 / 2
    longest = max(SHORTEST, min(int(10 * settings.mean_history), settings.items // 2, there - 1))
    drawn = generator.lognormal(mean, LENGTH_SPREAD, count)
    return np.asarray(np.clip(np.rint(drawn), SHORTEST, longest).astype(np.int64))


def _draw_interests(
    settings: BazaarSource, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two to INTERESTS tastes a user with their weights (0 for those not held), and the one in focus."""
    held = np.arange(INTERESTS) < generator.integers(2, INTERESTS + 1, (count, 1))
    base = generator.gamma(2.0, size=(count, INTERESTS)) * held
    base /= base.sum(1, keepdims=True)
    tastes = generator.integers(0, settings.tastes, (count, INTERESTS))
    return tastes, base, _draw_focus(base, generator)


def _draw_focus(base: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    bounds = np.cumsum(base, axis=1)
    return np.asarray((generator.random((len(base), 1)) * bounds[:, -1:] >= bounds[:, :-1]).sum(1))


def _drift(
    settings: BazaarSource, tastes: np.ndarray, base: np.ndarray, focus: np.ndarray, generator: np.random.Generator
) -> None:
    """Move the focus of some users and exchange a taste of some, in place."""
    moving = np.flatnonzero(generator.random(len(focus)) < REFOCUS)
    focus[moving] = _draw_focus(base[moving], generator)
    changing = np.flatnonzero(generator.random(len(focus)) < settings.drift)
    which = _draw_focus(base[changing], generator)
    tastes[changing, which] = generator.integers(0, settings.tastes, len(changing))
