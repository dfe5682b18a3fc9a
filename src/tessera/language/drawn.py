"""Pictures drawn afresh with what they show: whom the built model learns describing from on the demo world.

Every picture is drawn from random attributes, never from those of an item of the catalogue: the model sees what
pictures can look like, and nothing of what an item is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tessera.data.bazaar.attributes import IMAGE, SIZES, VALUES
from tessera.data.bazaar.pictures import draw_picture


@dataclass(frozen=True)
class Drawing:
    """A picture, and the indices of category, colour, shape and pattern that it was drawn from."""

    picture: Image.Image
    values: tuple[int, int, int, int]

    @property
    def caption(self) -> str:
        """What is to be said of it."""
        return caption(*self.values)


def caption(category: int, colour: int, shape: int, pattern: int) -> str:
    """`a lamp in teal, pattern dots, shape star`: few words, each of which tells something.

    Before each stands a word that no other has before it. Where two stand behind a comma, a model must count commas to
    know which is due, and learning to look at the picture waits until it does.
    """
    names = [VALUES[name][value] for name, value in zip(IMAGE, (category, colour, shape, pattern), strict=True)]
    return f"a {names[0]} in {names[1]}, pattern {names[3]}, shape {names[2]}"


def read_caption(text: str) -> dict[str, str | None]:
    """The attributes that a caption names: the first word of each vocabulary in it, None where there is none."""
    words = re.findall(r"\w+", text)
    return {name: next((word for word in words if word in VALUES[name]), None) for name in IMAGE}


def draw(seed: int, stream: int, count: int) -> list[Drawing]:
    """`count` pictures of attributes drawn uniformly and independently."""
    random = np.random.default_rng((seed, stream))
    values = np.stack([random.integers(SIZES[name], size=count) for name in IMAGE], axis=1)
    draws = random.random((count, 8))
    drawings = []
    for row, positions in zip(values.tolist(), draws, strict=True):
        drawings.append(
            Drawing(draw_picture(row[0], row[1], row[2], row[3], positions), (row[0], row[1], row[2], row[3]))
        )
    return drawings
