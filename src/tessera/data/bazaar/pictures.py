"""Pictures of items: what the image channel shows. A coloured, patterned shape, 64 x 64 pixels, before the pale
backdrop that the shop keeps for its category.

Place, size, tilt and light differ from picture to picture, so that an item is not told by a single pixel.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from tessera.data.bazaar.attributes import CATEGORIES, COLOURS, IMAGE, PATTERNS, SHAPES
from tessera.data.bazaar.world import World, stream

SIDE = 64
_DRAWN = 2 * SIDE
"""Drawn at twice the size and shrunk: smooth edges."""


def draw_pictures(world: World, folder: Path) -> Iterator[str | None]:
    """Write `<raw id>.png` for every item that has a picture; yields the file name, or None, item by item."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = stream(world.settings.seed, "pictures").random((world.items, 8))
    for index, raw_id in enumerate(world.raw_ids()):
        if not world.has_image[index]:
            yield None
            continue
        category, colour, shape, pattern = (int(world.latents[name][index]) for name in IMAGE)
        picture = draw_picture(category, colour, shape, pattern, draws[index])
        picture.save(folder / f"{raw_id}.png", compress_level=1)
        yield f"{raw_id}.png"


def draw_picture(category: int, colour: int, shape: int, pattern: int, draws: np.ndarray) -> Image.Image:
    """One picture; `draws` (8,) in [0, 1) place, turn and light it."""
    ground = _ground(category, draws[:3])
    light = 0.88 + 0.24 * draws[3]
    paint = tuple(min(255, int(part * light)) for part in list(COLOURS.values())[colour])
    pale = tuple(int(0.3 * part + 0.7 * 255) for part in paint)
    middle = (_DRAWN * (0.46 + 0.08 * draws[4]), _DRAWN * (0.46 + 0.08 * draws[5]))
    radius = _DRAWN * (0.34 + 0.07 * draws[6])
    outline = Image.new("L", (_DRAWN, _DRAWN))
    _shape(ImageDraw.Draw(outline), SHAPES[shape], middle, radius, (draws[7] - 0.5) * 0.35)
    cloth = Image.new("L", (_DRAWN, _DRAWN))
    _pattern(ImageDraw.Draw(cloth), PATTERNS[pattern], middle)
    picture = Image.new("RGB", (_DRAWN, _DRAWN), ground)
    picture.paste(paint, mask=outline)
    picture.paste(pale, mask=ImageChops.multiply(outline, cloth))
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)


def _ground(category: int, draws: np.ndarray) -> tuple[int, int, int]:
    """The pale backdrop of a category, its light a little different every time."""
    hue = category / len(CATEGORIES)
    parts = colorsys.hsv_to_rgb(hue, 0.3 if category % 2 else 0.17, 0.96)
    red, green, blue = (int(255 * part + 8 * (draw - 0.5)) for part, draw in zip(parts, draws, strict=True))
    return red, green, blue


def _polar(middle: tuple[float, float], radius: float, angle: float) -> tuple[float, float]:
    return middle[0] + radius * sin(angle), middle[1] - radius * cos(angle)


def _ring(middle: tuple[float, float], radii: list[float], tilt: float) -> list[tuple[float, float]]:
    """A closed line around the middle, its corners at the given radii in turn."""
    return [_polar(middle, radius, tilt + 2 * pi * k / len(radii)) for k, radius in enumerate(radii)]


def _shape(draw: ImageDraw.ImageDraw, name: str, middle: tuple[float, float], radius: float, tilt: float) -> None:
    """Fill the shape with 255."""
    if name == "circle":
        draw.circle(middle, 0.92 * radius, fill=255)
    elif name == "heart":
        curve = np.linspace(0, 2 * pi, 40)
        x = 16 * np.sin(curve) ** 3
        y = 13 * np.cos(curve) - 5 * np.cos(2 * curve) - 2 * np.cos(3 * curve) - np.cos(4 * curve)
        turned = (x * cos(tilt) + y * sin(tilt), y * cos(tilt) - x * sin(tilt))
        points = zip(middle[0] + turned[0] * radius / 16, middle[1] - turned[1] * radius / 16, strict=True)
        draw.polygon([(float(a), float(b)) for a, b in points], fill=255)
    elif name == "drop":
        low = _polar(middle, -0.3 * radius, tilt)
        sides = [_polar(low, 0.62 * radius, tilt + turn) for turn in (1.15, -1.15)]
        draw.circle(low, 0.68 * radius, fill=255)
        draw.polygon([_polar(middle, 1.15 * radius, tilt), *sides], fill=255)
    elif name == "cross":
        arm, bay = 1.05 * radius, 0.45 * radius
        for turn in (0.0, pi / 2):
            corners = [(arm, 0.33), (arm, -0.33), (arm, pi + 0.33), (arm, pi - 0.33)]
            draw.polygon([_polar(middle, r, tilt + turn + a) for r, a in corners], fill=255)
        draw.circle(middle, 0.7 * bay, fill=255)
    else:
        radii = {
            "square": [1.15 * radius] * 4,
            "triangle": [1.2 * radius] * 3,
            "hexagon": [1.05 * radius] * 6,
            "star": [1.2 * radius, 0.5 * radius] * 5,
        }[name]
        draw.polygon(_ring(middle, radii, tilt + (pi / 4 if name == "square" else 0)), fill=255)


def _pattern(draw: ImageDraw.ImageDraw, name: str, middle: tuple[float, float]) -> None:
    """Paint 255 where the cloth is pale; a plain cloth stays empty."""
    step = _DRAWN // 8
    starts = range(step // 4, _DRAWN, step)
    if name in ("stripes", "checks"):
        for start in starts:
            draw.rectangle((start, 0, start + step * 0.4, _DRAWN), fill=255)
    if name in ("bars", "checks"):
        for start in starts:
            draw.rectangle((0, start, _DRAWN, start + step * 0.4), fill=255)
    if name == "dots":
        for row, y in enumerate(range(0, _DRAWN, step)):
            for x in range((row % 2) * step // 2, _DRAWN, step):
                draw.circle((x, y), step * 0.3, fill=255)
    if name == "rings":
        for k in range(1, 9):
            draw.circle(middle, k * step * 0.8, outline=255, width=step // 3)
