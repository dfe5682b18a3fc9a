"""The catalogue and the laws of the shop: everything that is fixed before the first user enters.

A *taste* is a distribution over items that comes from liked attribute values of both channels. A *look* (category and
colour of an item) has its own distribution of what is bought next. `World` holds them as rows of one matrix, so that
drawing an item and telling its probability are the same look-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera.data.bazaar.attributes import ATTRIBUTES, IMAGE, SIZES, TEXT
from tessera.settings.datasets import BazaarSource

# How much a liked value adds to the log-affinity of a taste, and how many values of the attribute a taste likes.
LIKING = {"category": 2.6, "brand": 0.8, "material": 1.0, "style": 1.6, "price": 0.8,
          "colour": 2.2, "shape": 1.4, "pattern": 1.6}  # fmt: skip
LIKED = {"category": 2, "brand": 3, "material": 3, "style": 2, "price": 2, "colour": 2, "shape": 2, "pattern": 2}
# What follows an item: something of a complementary category, in the same colour.
COMPLEMENTS, COMPLEMENT_GAIN, SAME_COLOUR_GAIN = 2, 3.0, 2.5
COMPANIONS = 4
COMPANION_SHARE = 1 / 3
"""Share of the transitions that go to one of the item's own companions."""
NOISE_SHARE = 0.1
"""Share of the other steps that only follow popularity."""
INTERESTS = 4
"""Most interests a user."""

# What each part of the world draws from, so that a change of one leaves the others alone.
STREAMS = {"items": 0, "tastes": 1, "transitions": 2, "text": 3, "pictures": 4, "users": 5, "log": 6}


def stream(seed: int, name: str, chunk: int = 0) -> np.random.Generator:
    """The random generator of one part of the world."""
    return np.random.default_rng([seed, STREAMS[name], chunk])


@dataclass(frozen=True)
class World:
    """The shop.

    Attributes:
        latents: attribute name -> value of each item, (items,) int16.
        weight: popularity of each item, (items,), sums to 1.
        rows: distributions over items, (tastes + looks + 1, items), each sums to 1; the last is `weight`.
        look: row of `rows` that follows each item, (items,) int32.
        companions: items that go with each item, (items, COMPANIONS) int32.
        has_text, has_image: whether an item has a description, a picture, (items,) bool.
    """

    settings: BazaarSource
    latents: Mapping[str, np.ndarray]
    weight: np.ndarray
    rows: np.ndarray
    look: np.ndarray
    companions: np.ndarray
    has_text: np.ndarray
    has_image: np.ndarray

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
    weight = _draw_popularity(settings)
    tastes = _softmax(np.log(weight) + _taste_affinities(settings, latents))
    look = latents["category"].astype(np.int32) * SIZES["colour"] + latents["colour"]
    follows = _softmax(np.log(weight) + _look_affinities(settings, latents))
    generator = stream(settings.seed, "text")
    return World(
        settings=settings,
        latents=latents,
        weight=weight,
        rows=np.concatenate([tastes, follows, weight[None]]),
        look=look + settings.tastes,
        companions=_draw_companions(settings, follows, look),
        has_text=generator.random(settings.items) >= settings.missing,
        has_image=generator.random(settings.items) >= settings.missing,
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
    for name in IMAGE:
        drawn[name] = generator.integers(0, SIZES[name], count)
    return {name: drawn[name].astype(np.int16) for name in ATTRIBUTES}


def _choose(logits: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One column a row, with probability softmax(logits) (the Gumbel-max trick)."""
    return np.asarray((logits + generator.gumbel(size=logits.shape)).argmax(1))


def _draw_popularity(settings: BazaarSource) -> np.ndarray:
    """Zipf's law with a flattened head, ranks dealt to items at random."""
    ranks = stream(settings.seed, "items", 1).permutation(settings.items)
    weight = (ranks + 1 + 0.01 * settings.items) ** -settings.popularity
    return np.asarray(weight / weight.sum())


def _taste_affinities(settings: BazaarSource, latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum over attributes of the liking of the item's value, (tastes, items)."""
    generator = stream(settings.seed, "tastes")
    affinity = np.zeros((settings.tastes, settings.items))
    for name in ATTRIBUTES:
        order = generator.random((settings.tastes, SIZES[name])).argsort(1)
        likes = LIKING[name] * (order < LIKED[name])
        affinity += likes[:, latents[name]]
    return affinity


def _look_affinities(settings: BazaarSource, latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """What follows a look, (categories x colours, items): complementary categories, the same colour."""
    generator = stream(settings.seed, "transitions")
    categories, colours = SIZES["category"], SIZES["colour"]
    complement = generator.random((categories, categories))
    np.fill_diagonal(complement, np.inf)
    gain = COMPLEMENT_GAIN * (complement.argsort(1).argsort(1) < COMPLEMENTS)
    affinity = np.repeat(gain[:, latents["category"]], colours, axis=0)
    affinity += SAME_COLOUR_GAIN * np.tile(np.arange(colours)[:, None] == latents["colour"], (categories, 1))
    return affinity


def _draw_companions(settings: BazaarSource, follows: np.ndarray, look: np.ndarray) -> np.ndarray:
    """A few items that go with each item, from the distribution that its look is followed by, (items, COMPANIONS)."""
    generator = stream(settings.seed, "transitions", 1)
    cumulative = np.cumsum(follows, axis=1)
    companions = np.empty((settings.items, COMPANIONS), np.int32)
    for key in np.unique(look):
        own = np.flatnonzero(look == key)
        draws = generator.random((len(own), COMPANIONS)) * cumulative[key, -1]
        companions[own] = np.searchsorted(cumulative[key], draws, side="right")
    return companions
