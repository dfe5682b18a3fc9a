"""Pictures of items, opened without trust: size before decoding, one colour mode, one error."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 64_000_000
"""Most pixels of a picture: a small file can decode to any size, and memory goes with pixels."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


class PictureError(ValueError):
    """A picture that cannot be read. `reason` is its text without the file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def at_most(picture: Image.Image, pixels: int) -> Image.Image:
    """The picture, made smaller in its proportions where it has more pixels."""
    width, height = picture.size
    if width * height <= pixels:
        return picture
    scale = (pixels / (width * height)) ** 0.5
    return picture.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.LANCZOS)


def open_picture(path: str | Path) -> Image.Image:
    """The picture in RGB, upright; what is transparent becomes white.

    Raises:
        PictureError: there is no file, it is no picture (or one of another format than `FORMATS`), it breaks off, or it
            has more than `LARGEST` pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise PictureError(path, "no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the check below takes the place of Pillow's warning of large pictures
            with Image.open(path, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > LARGEST:
                    raise PictureError(
                        path, f"is {width} x {height} pixels; at most {LARGEST:,} are decoded (a decompression bomb?)"
                    )
                if max(width, height) > 200 * min(width, height):
                    raise PictureError(path, f"is {width} x {height} pixels: too narrow to show anything")
                upright = ImageOps.exif_transpose(picture)
                return _in_rgb(upright)
    except PictureError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
        reason = " ".join(str(error).replace(str(path), "the file").split())
        raise PictureError(path, f"cannot be decoded ({reason})") from None


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
