"""What the pixels of a picture say in words: the colours that fill it, and how bright it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

HUES = (
    (15, "red"), (40, "orange"), (65, "yellow"), (160, "green"), (200, "teal"), (255, "blue"), (290, "purple"),
    (340, "pink"), (360, "red"),
)  # fmt: skip
"""Names of hues up to so many degrees."""
BRIGHTNESS = ((70, "very dark"), (115, "dark"), (160, "medium"), (210, "bright"), (256, "very bright"))
"""Names of the mean luma up to so much of 255."""
SECOND = 0.2
"""A second colour is named where it fills at least this share."""


def colour_words(picture: Image.Image) -> str:
    """`mostly red and white, bright`: one or two colours and the brightness, from the pixels of an RGB picture."""
    small = picture.resize((32, 32), Image.Resampling.BOX)
    hue, saturation, value = (part.astype(np.float64) for part in np.moveaxis(np.asarray(small.convert("HSV")), -1, 0))
    names = np.array([name for _, name in HUES])
    named = names[np.searchsorted([top for top, _ in HUES], hue * 360 / 256, side="left").clip(0, len(names) - 1)]
    grey = np.select([value < 60, value > 210], ["black", "white"], "grey")
    named = np.where((saturation < 40) | (value < 45), grey, named)
    named = np.where((named == "orange") & (value < 150), "brown", named)
    colours, counts = np.unique(named, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    words = str(colours[order[0]])
    if len(order) > 1 and counts[order[1]] >= SECOND * named.size:
        words += f" and {colours[order[1]]}"
    luma = float(np.asarray(small.convert("L"), np.float64).mean())
    return f"mostly {words}, {next(name for top, name in BRIGHTNESS if luma < top)}"
