"""The vocabulary of the shop: what an item can be, and which channel tells it.

A title and a description tell category, brand, material, style and price; a picture shows category, colour, shape and
pattern. But for the category, the attributes of one channel are drawn independently of the other's: neither can be
guessed from the other.
"""

from __future__ import annotations

TEXT = ("category", "brand", "material", "style", "price")
IMAGE = ("category", "colour", "shape", "pattern")
ATTRIBUTES = tuple(dict.fromkeys(TEXT + IMAGE))

CATEGORIES = (
    "mug", "lamp", "backpack", "cushion", "notebook", "scarf", "vase", "clock", "blanket", "bowl", "wallet", "stool",
)  # fmt: skip
BRANDS = (
    "Alderway", "Brightmoor", "Calder & Finch", "Dunlin", "Eastvale", "Fernhill", "Gullwing", "Harrow Lane", "Isbourne",
    "Juniper Row", "Kestrel", "Lowther", "Marlpit", "Northmere", "Oxbow", "Pennard", "Quayside", "Rushbrook",
)  # fmt: skip
MATERIALS = ("oak", "linen", "leather", "stoneware", "glass", "wool", "brass", "bamboo", "cotton", "steel")
STYLES = ("rustic", "modern", "vintage", "nordic", "industrial", "romantic", "minimal", "bohemian")
PRICES = ("budget", "fair", "middle", "upmarket", "luxury")
PRICE_RANGES = ((4, 12), (12, 25), (25, 50), (50, 95), (95, 240))

COLOURS = {
    "red": (200, 45, 45),
    "orange": (236, 132, 32),
    "yellow": (236, 205, 50),
    "green": (52, 148, 70),
    "teal": (30, 150, 156),
    "blue": (45, 88, 196),
    "purple": (128, 66, 170),
    "pink": (236, 120, 172),
    "brown": (124, 78, 42),
    "grey": (112, 116, 124),
}
SHAPES = ("circle", "square", "triangle", "hexagon", "star", "heart", "cross", "drop")
PATTERNS = ("plain", "stripes", "bars", "dots", "checks", "rings")

VALUES: dict[str, tuple[str, ...]] = {
    "category": CATEGORIES,
    "brand": BRANDS,
    "material": MATERIALS,
    "style": STYLES,
    "price": PRICES,
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "pattern": PATTERNS,
}
SIZES = {name: len(values) for name, values in VALUES.items()}
