"""The catalogue and the laws of the shop: everything that is fixed before the first user enters.

A *taste* is a distribution over items that comes from liked attribute values of both channels. Every item has
*successors*, the items that go with it by the attributes of both channels. Drawing an item and telling its probability
look up the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera.artifacts.tables import TASTES_HELD
from tessera.data.bazaar.attributes import ATTRIBUTES, IMAGE, SIZES, TEXT
from tessera.settings.sources.bazaar import BazaarSource

# How much a liked value adds to the log-affinity of a taste, and how many values of the attribute a taste likes.
LIKING = {"category": 3.4, "brand": 1.2, "material": 1.2, "style": 2.4, "price": 1.0,
          "colour": 3.4, "shape": 2.4, "pattern": 2.0}  # fmt: skip
LIKED = {"category": 1, "brand": 2, "material": 2, "style": 1, "price": 1, "colour": 1, "shape": 1, "pattern": 1}
# What follows an item: something of a complementary category that goes with it, and most of all looks like it.
COMPLEMENTS, COMPLEMENT_GAIN = 1, 6.0
MATCHING = {"style": 2.0, "material": 1.0, "colour": 1.8, "pattern": 0.8}
SUCCESSORS = 200
"""Most items that can follow an item."""
POPULARITY_PULL = 0.25
"""Exponent of popularity inside tastes and successors: an interest finds the tail better than fame does."""
FASHION = 0.5
"""Share of an item's popularity (variance of its appeal) that its attributes explain; the rest is luck."""
NOISE_SHARE = 0.2
"""Share of the other steps that only follow popularity."""
INTERESTS = TASTES_HELD
"""Most interests a user."""
_BLOCK = 512
"""Items whose successors are sought at once."""

# What each part of the world draws from, so that a change of one leaves the others alone.
STREAMS = {"items": 0, "tastes": 1, "transitions": 2, "text": 3, "pictures": 4, "users": 5, "log": 6, "late": 7}
OPENING, YEARS = 1_609_459_200, 2  # 2021-01-01 UTC; users come in over so many years
DAY = 86_400


def stream(seed: int, name: str, chunk: int = 0) -> np.random.Generator:
    """The random generator of one part of the world."""
    return np.random.default_rng([seed, STREAMS[name], chunk])


@dataclass(frozen=True)
class World:
    """The shop.

    Attributes:
        latents: attribute name -> value of each item, (items,) int16.
        weight: popularity of each item, (items,), sums to 1.
        rows: distributions over items, (tastes + 1, items), each sums to 1; the last is `weight`.
        successors: items that can follow each item, best first, (items, SUCCESSORS or fewer) int32.
        successor_odds: their probabilities, float64, each row sums to 1.
        has_text, has_image: whether an item has a description, a picture, (items,) bool.
        opens: when an item opens, unix seconds, (items,) int64; 0 where it was always there.
    """

    settings: BazaarSource
    latents: Mapping[str, np.ndarray]
    weight: np.ndarray
    rows: np.ndarray
    successors: np.ndarray
    successor_odds: np.ndarray
    has_text: np.ndarray
    has_image: np.ndarray
    opens: np.ndarray

    @property
    def items(self) -> int:
        """Number of items."""
        return self.settings.items

    def raw_ids(self) -> list[str]:
        """The shop's own ids, zero-padded."""
        return [f"b{index:06d}" for index in range(self.items)]

    def one_hot(self, view: str) -> np.ndarray:
        """What a perfect reader of a channel knows, (items, dim) float32; zeros where the channel is silent.

        `view` is "text", "image" or "all" (every attribute, missing descriptions and pictures notwithstanding).
        """
        parts = []
        for name in {"text": TEXT, "image": IMAGE, "all": ATTRIBUTES}[view]:
            part = np.eye(SIZES[name], dtype=np.float32)[self.latents[name]]
            if view == "text" and name in ("material", "style"):
                part[~self.has_text] = 0  # only the description tells these
            if view == "image":
                part[~self.has_image] = 0
            parts.append(part)
        return np.concatenate(parts, axis=1)


def build_world(settings: BazaarSource) -> World:
    """The shop of these settings; the same settings give the same shop."""
    latents = _draw_latents(settings)
    weight = _draw_popularity(settings, latents)
    pull = POPULARITY_PULL * np.log(weight)
    tastes = _softmax(pull + _taste_affinities(settings, latents))
    successors, odds = _draw_successors(settings, latents, pull)
    generator = stream(settings.seed, "text")
    return World(
        settings=settings,
        latents=latents,
        weight=weight,
        rows=np.concatenate([tastes, weight[None]]),
        successors=successors,
        successor_odds=odds,
        has_text=generator.random(settings.items) >= settings.missing,
        has_image=generator.random(settings.items) >= settings.missing,
        opens=_draw_openings(settings),
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise, in place: the matrix is the largest thing here."""
    logits -= logits.max(1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(1, keepdims=True)
    return logits


def _draw_latents(settings: BazaarSource) -> dict[str, np.ndarray]:
    """Attribute values: each brand makes some categories at a price level, each category comes in some materials."""
    generator = stream(settings.seed, "items")
    count = settings.items
    category_share = generator.dirichlet(np.full(SIZES["category"], 6.0))
    category = generator.choice(SIZES["category"], count, p=category_share)
    maker = np.log(generator.gamma(0.5, size=(SIZES["category"], SIZES["brand"])) + 1e-6)
    made_of = np.log(generator.gamma(0.5, size=(SIZES["category"], SIZES["material"])) + 1e-6)
    brand = _choose(maker[category], generator)
    level = generator.integers(0, SIZES["price"], SIZES["brand"])
    price = np.clip(level[brand] + generator.integers(-1, 2, count), 0, SIZES["price"] - 1)
    drawn: dict[str, Any] = {
        "category": category,
        "brand": brand,
        "material": _choose(made_of[category], generator),
        "style": generator.integers(0, SIZES["style"], count),
        "price": price,
    }
    for name in ("colour", "shape", "pattern"):
        drawn[name] = generator.integers(0, SIZES[name], count)
    return {name: drawn[name].astype(np.int16) for name in ATTRIBUTES}


def _choose(logits: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One column a row, with probability softmax(logits) (the Gumbel-max trick)."""
    return np.asarray((logits + generator.gumbel(size=logits.shape)).argmax(1))


def _draw_popularity(settings: BazaarSource, latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """Zipf's law with a flattened head; ranks come from attributes in fashion and from luck (`FASHION`)."""
    generator = stream(settings.seed, "items", 1)
    fashion = sum(generator.normal(size=SIZES[name])[latents[name]] for name in ATTRIBUTES) / len(ATTRIBUTES) ** 0.5
    appeal = FASHION**0.5 * fashion + (1 - FASHION) ** 0.5 * generator.normal(size=settings.items)
    ranks = np.argsort(np.argsort(-appeal))
    weight = (ranks + 1 + 0.01 * settings.items) ** -settings.popularity
    return np.asarray(weight / weight.sum())


def _draw_openings(settings: BazaarSource) -> np.ndarray:
    """When each item opens: `late` of them, whatever they are, at a time in the second half of the years."""
    generator = stream(settings.seed, "late")
    late = generator.random(settings.items) < settings.late
    half = YEARS * 365 * DAY // 2
    return np.where(late, OPENING + half + generator.integers(0, half, settings.items), 0)


def _taste_affinities(settings: BazaarSource, latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum over attributes of the liking of the item's value, (tastes, items)."""
    generator = stream(settings.seed, "tastes")
    affinity = np.zeros((settings.tastes, settings.items))
    for name in ATTRIBUTES:
        order = generator.random((settings.tastes, SIZES[name])).argsort(1)
        likes = LIKING[name] * (order < LIKED[name])
        affinity += likes[:, latents[name]]
    return affinity


def _draw_successors(
    settings: BazaarSource, latents: Mapping[str, np.ndarray], pull: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What can follow each item and with what probability, (items, SUCCESSORS or fewer) each.

    The log-odds that item i follows item j are a sum over attributes: i is of a category that complements that of j,
    and has the values of j. Only the best successors are kept; the matrix of all pairs never exists at once.
    """
    generator = stream(settings.seed, "transitions")
    complement = generator.random((SIZES["category"], SIZES["category"]))
    np.fill_diagonal(complement, np.inf)
    follows = complement.argsort(1).argsort(1) < COMPLEMENTS
    # inner products of these are the log-odds
    before = [COMPLEMENT_GAIN * follows[latents["category"]]]
    after = [np.eye(SIZES["category"])[latents["category"]]]
    for name, gain in MATCHING.items():
        values = np.eye(SIZES[name])[latents[name]]
        before.append(gain * values)
        after.append(values)
    left, right = (np.concatenate(parts, axis=1) for parts in (before, after))
    kept = min(SUCCESSORS, settings.items - 1)
    successors = np.empty((settings.items, kept), np.int32)
    odds = np.empty((settings.items, kept))
    for begin in range(0, settings.items, _BLOCK):
        logits = left[begin : begin + _BLOCK] @ right.T + pull
        own = np.arange(len(logits))
        logits[own, begin + own] = -np.inf
        best = np.argpartition(-logits, kept - 1, axis=1)[:, :kept]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(logits, best, 1), axis=1, kind="stable"), 1)
        successors[begin : begin + _BLOCK] = best
        odds[begin : begin + _BLOCK] = _softmax(np.take_along_axis(logits, best, 1))
    return successors, odds
