"""Titles and descriptions: what the text channel tells of an item, in more words than one."""

from __future__ import annotations

import numpy as np

from tessera.data.bazaar.attributes import BRANDS, CATEGORIES, MATERIALS, PRICE_RANGES, PRICES, STYLES
from tessera.data.bazaar.world import World, stream

# Several ways to say the same thing: a reader has to learn that they mean one value.
_STYLE_WORDS = {
    "rustic": ("rustic", "farmhouse", "country-style"),
    "modern": ("modern", "contemporary"),
    "vintage": ("vintage", "retro", "old-time"),
    "nordic": ("nordic", "scandinavian"),
    "industrial": ("industrial", "factory-look"),
    "romantic": ("romantic", "cottage"),
    "minimal": ("minimal", "pared-down", "minimalist"),
    "bohemian": ("bohemian", "boho"),
}
_PRICE_WORDS = {
    "budget": ("easy on the purse", "a bargain for every day"),
    "fair": ("fairly priced", "good value"),
    "middle": ("mid-priced", "a sensible buy"),
    "upmarket": ("for those who want something better", "upmarket"),
    "luxury": ("a luxury", "made without regard to cost"),
}
_PLACES = ("the hallway", "a quiet corner", "the kitchen table", "long journeys", "the office", "a reading chair")
_OPENINGS = ("A {style} {category} of {material}", "This {category}, {style} in spirit, is made of {material}",
             "{material}, worked into a {style} {category}")  # fmt: skip
_MIDDLES = ("Made for {place}.", "At home in {place}.", "A gift for {place}.")
_ENDINGS = ("By {brand}: {price}.", "From the workshop of {brand}, {price}.", "{brand} calls it {price}.")


def _pick(words: tuple[str, ...], draw: float) -> str:
    return words[int(draw * len(words))]


def write_texts(world: World) -> list[tuple[str, dict[str, str]]]:
    """Title and attributes (category, brand, price in money, description where there is one) of every item.

    The title names brand and category; material and style stand in the description alone.
    """
    draws = stream(world.settings.seed, "text", 1).random((world.items, 8))
    return [_write(world, index, draws[index]) for index in range(world.items)]


def _write(world: World, index: int, draws: np.ndarray) -> tuple[str, dict[str, str]]:
    value = {name: int(world.latents[name][index]) for name in ("category", "brand", "material", "style", "price")}
    category, brand = CATEGORIES[value["category"]], BRANDS[value["brand"]]
    model = f"No. {1 + int(draws[0] * 900)}"
    title = (f"{brand} {category} {model}", f"{category.capitalize()} {model} by {brand}")[int(draws[1] * 2)]
    low, high = PRICE_RANGES[value["price"]]
    attributes = {"category": category, "brand": brand, "price": f"{low + draws[2] * (high - low):.2f}"}
    if world.has_text[index]:
        words = {
            "style": _pick(_STYLE_WORDS[STYLES[value["style"]]], draws[3]),
            "material": MATERIALS[value["material"]],
            "category": category,
            "brand": brand,
            "price": _pick(_PRICE_WORDS[PRICES[value["price"]]], draws[4]),
            "place": _pick(_PLACES, draws[5]),
        }
        opening = _pick(_OPENINGS, draws[6]).format(**words)
        opening = opening[0].upper() + opening[1:] + "."
        rest = [_pick(part, draws[7]).format(**words) for part in (_MIDDLES, _ENDINGS)]
        attributes["description"] = " ".join([opening, *rest])
    return title, attributes
