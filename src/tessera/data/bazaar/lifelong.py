"""Long lives in the shop: impressions, their true chance of a click, and the clicks.

A user keeps its interests (tastes) for life. They wake in turn, one a session, the lesser ones seldom: between two
sessions of the same interest there may be hundreds of clicks on other things. What is shown comes from the awake
interest, from a sleeping one, from tastes that the user does not have, or from popularity. An item matches a taste
when it is among the few that the taste likes best, and

    p(click) = noise · CHANCE + (1 - noise) · sigmoid(BASE + GAIN · max(match(awake), ASLEEP · max over the others))

so that whether something shown is clicked is told by events long past, hidden among others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tessera.artifacts.tables import CLICK_TRUTH, RAW_INTERACTIONS
from tessera.data.bazaar.histories import Sampler
from tessera.data.bazaar.log import item_ids, user_ids
from tessera.data.bazaar.world import OPENING, YEARS, World, stream
from tessera.settings.sources.bazaar import Lifelong

CHUNK = 64
"""Users drawn together. Part of the process: another value gives another world."""
SHOWN = (0.2, 0.15, 0.5, 0.15)
"""What is shown: of the awake interest, of another interest of the user, of any taste, of what is popular."""
CHANCE = 0.25
BASE, GAIN, ASLEEP = -3.5, 6.0, 0.85
MATCHING, SOFTNESS = 0.975, 0.006
"""Quantile of a taste's liking from which an item matches it, and how gradually."""
CLICK_RATE = 0.4
"""About what share of impressions is clicked; only how many are drawn for the wanted number of clicks depends on it."""
LENGTH_SPREAD = 0.35
_PERIOD = YEARS * 365 * 86_400


@dataclass(frozen=True)
class Lives:
    """Impressions of some users, in order of user and time."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    """Unix seconds, strictly rising within a user."""
    probability: np.ndarray
    clicked: np.ndarray
    logged: np.ndarray
    """Whether the log has it: every click, and from `Lifelong.logged` on every impression."""


class LifelongSampler:
    """Draws impressions from a world."""

    def __init__(self, world: World, settings: Lifelong) -> None:
        self.world, self.settings = world, settings
        self.sampler = Sampler(world)
        self.tastes = len(world.rows) - 1
        quantiles = np.argsort(np.argsort(world.rows[:-1], axis=1), axis=1) / max(1, world.items - 1)
        self.match = 1 / (1 + np.exp((MATCHING - quantiles) / SOFTNESS))
        """(tastes, items) from 0 to 1."""

    def lives(self, chunk: int) -> Lives:
        """The users of a chunk."""
        generator = stream(self.world.settings.seed, "users", chunk)
        users = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, self.world.settings.users))
        lives = [self._life(generator) for _ in users]
        columns = [np.concatenate(parts) for parts in zip(*lives, strict=True)]
        return Lives(np.repeat(users, [len(one[0]) for one in lives]), *columns)

    def _life(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        settings = self.settings
        mean = np.log(settings.clicks / CLICK_RATE) - LENGTH_SPREAD**2 / 2
        count = max(20, round(generator.lognormal(mean, LENGTH_SPREAD)))
        held = generator.choice(self.tastes, min(settings.interests, self.tastes), replace=False)
        weights = generator.gamma(0.7, size=len(held)) + 0.02
        weights /= weights.sum()
        starts = generator.random(count) < 1 / settings.session
        starts[0] = True
        session = np.cumsum(starts) - 1
        awake = generator.choice(len(held), session[-1] + 1, p=weights)[session]
        rows = self._shown(held, weights, awake, generator)
        items = self.sampler.draw(rows, generator)

        # the match with every interest of the user, those asleep counting less
        matches = ASLEEP * self.match[held][:, items]
        matches[awake, np.arange(count)] /= ASLEEP
        by_taste = 1 / (1 + np.exp(-(BASE + GAIN * matches.max(0))))
        probability = settings.noise * CHANCE + (1 - settings.noise) * by_taste
        clicked = generator.random(count) < probability

        opened = np.sort(generator.random(session[-1] + 1)) * _PERIOD * 0.999
        gaps = np.where(starts, 0, 1 + generator.exponential(40, count))
        since = np.cumsum(gaps)
        times = (OPENING + opened[session] + since - since[starts][session]).astype(np.int64)
        steps = np.arange(count)
        times = np.maximum.accumulate(times - steps) + steps  # no two at once
        logged = clicked | (times >= OPENING + (1 - settings.logged) * _PERIOD)
        return items, times, probability, clicked, logged

    def _shown(
        self, held: np.ndarray, weights: np.ndarray, awake: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """The row of the world that each impression is drawn from."""
        count = len(awake)
        source = generator.choice(len(SHOWN), count, p=SHOWN)
        other = held[generator.integers(0, len(held), count)]
        anyone = generator.integers(0, self.tastes, count)
        return np.choose(source, [held[awake], other, anyone, np.full(count, self.tastes)])


def log_table(world: World, lives: Lives, first_row: int) -> pa.Table:
    """The rows of the log of some users; rating 1 is a click, 0 is none."""
    kept = np.flatnonzero(lives.logged)
    return pa.table(
        [
            user_ids(lives.users[kept]),
            item_ids(world, lives.items[kept]),
            pa.array(lives.times[kept]),
            pa.array(lives.clicked[kept].astype(np.float32)),
            pa.nulls(len(kept), pa.string()),
            pa.array(first_row + np.arange(len(kept))),
        ],
        schema=RAW_INTERACTIONS,
    )


def truth_table(world: World, lives: Lives, settings: Lifelong) -> pa.Table:
    """The true chance of a click of every impression of the part of the time in which all are logged."""
    known = lives.users < world.settings.oracle_users
    known &= lives.times >= OPENING + (1 - settings.logged) * _PERIOD
    kept = np.flatnonzero(known)
    columns = [user_ids(lives.users[kept]), item_ids(world, lives.items[kept])]
    return pa.table([*columns, pa.array(lives.times[kept]), pa.array(lives.probability[kept])], schema=CLICK_TRUTH)
