"""Pictures of items, opened without trust: size before decoding, one colour mode, one error.

Everything that looks at a picture opens it here: models, captions and the report.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from PIL import Image, ImageOps

LARGEST = 64_000_000
"""Most pixels of a picture: a small file can decode to any size, and memory goes with pixels."""
AT_ONCE = 16_000_000
"""Larger pictures are made smaller by a whole factor before anything else is done with them: each step takes a copy."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read, whatever a file is named. None of these is decoded by another program, as EPS is by Ghostscript."""
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Ends of the names of files in these formats."""
OTHER_SUFFIXES = (
    *(".avif", ".heic", ".heif", ".jxl", ".jp2", ".svg", ".eps", ".ps", ".pdf", ".psd", ".ico", ".tga"),
    *(".ppm", ".raw", ".dng"),
)
"""Ends of the names of pictures that are not read, so that a folder of them can be told."""


NARROWEST = 200
"""The long side of a picture over its short one, at most: image processors refuse what is narrower."""


class PictureError(ValueError):
    """A picture that cannot be read. `reason` is its text without the file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def at_most(picture: Image.Image, pixels: int) -> Image.Image:
    """The picture, made smaller in its proportions where it has more pixels; not narrower than `NARROWEST`."""
    width, height = picture.size
    if width * height <= pixels:
        return picture
    scale = (pixels / (width * height)) ** 0.5
    sides = [max(1, int(width * scale)), max(1, int(height * scale))]
    # whole pixels are much of a short side
    least = min(math.ceil(max(sides) / NARROWEST), width, height)
    return picture.resize((max(least, sides[0]), max(least, sides[1])), Image.Resampling.LANCZOS)


def open_picture(path: str | Path, side: int | None = None) -> Image.Image:
    """The picture in RGB, upright; what is transparent becomes white.

    Args:
        path: the file; its content says what format it is, not its name.
        side: longest side in pixels; larger pictures are made smaller, in their proportions.
    Raises:
        PictureError: there is no file, it is no picture (or one of another format than `FORMATS`), it is damaged or
            breaks off, or it has more than `LARGEST` pixels.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a name that is too long is an error here, too
            raise PictureError(path, "no such file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the check below takes the place of Pillow's warning of large pictures
            with Image.open(path, formats=FORMATS) as picture:
                _check_size(path, *picture.size)
                if side is not None:
                    picture.draft("RGB", (side, side))  # a large JPEG is decoded at a fraction of its size
                picture.load()
                _check_size(path, *picture.size)  # decoding may find another size than the head of the file told
                ImageOps.exif_transpose(picture, in_place=True)
                flat = _in_rgb(_reduced(picture))
    except PictureError:
        raise
    except Exception as error:  # decoders of damaged files fail in every way: SyntaxError, struct.error, KeyError, ...
        reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
        raise PictureError(path, f"cannot be decoded ({reason[:200]})") from None
    flat.info.clear()  # what a file carries beside its pixels, such as places, stays behind
    if side is not None:
        flat.thumbnail((side, side))
    return flat


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > LARGEST:
        raise PictureError(
            path, f"is {width} x {height} pixels; at most {LARGEST:,} are decoded (a decompression bomb?)"
        )
    if max(width, height) > NARROWEST * min(width, height):
        raise PictureError(path, f"is {width} x {height} pixels: too narrow to show anything")


def _reduced(picture: Image.Image) -> Image.Image:
    """The picture with at most about `AT_ONCE` pixels; colours that are numbers of a palette cannot be averaged."""
    width, height = picture.size
    if width * height <= AT_ONCE or picture.mode not in ("L", "RGB", "RGBA", "CMYK", "I", "F"):
        return picture
    return picture.reduce(min(math.ceil(math.sqrt(width * height / AT_ONCE)), min(width, height)))


def _in_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "I;16", "I;16B", "I;16L", "F"):  # 16-bit grey would be clipped to white
        low, high = picture.convert("F").getextrema()
        span = max(float(high) - float(low), 1.0)  # type: ignore[arg-type]
        return picture.convert("F").point(lambda x: (x - float(low)) * (255.0 / span)).convert("RGB")  # type: ignore[arg-type]
    if picture.has_transparency_data:
        shown = picture.convert("RGBA")
        ground = Image.new("RGBA", shown.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, shown).convert("RGB")
    return picture.convert("RGB")
