"""Pictures that break, swell or come in odd modes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tessera.data.pictures import PictureError, at_most, open_picture
from tessera.language.colours import colour_words


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(PictureError, match="bomb"):
        open_picture(tmp_path / "bomb.png")
    Image.new("1", (9000, 8000)).save(tmp_path / "large.png")  # under Pillow's own limit, over ours
    with pytest.raises(PictureError, match=r"is 9000 x 8000 pixels; at most 64,000,000"):
        open_picture(tmp_path / "large.png")


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"\xff\xd8\xff\xe0 not a jpeg"])
def test_what_is_no_picture_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(PictureError, match=r"x\.jpg: cannot be decoded"):
        open_picture(tmp_path / "x.jpg")


def test_missing_and_broken_off_pictures(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no such file"):
        open_picture(tmp_path / "none.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(PictureError, match="cannot be decoded"):
        open_picture(tmp_path / "half.png")
    Image.new("RGB", (1000, 2)).save(tmp_path / "line.png")
    with pytest.raises(PictureError, match="too narrow"):
        open_picture(tmp_path / "line.png")


def test_every_colour_mode_becomes_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 8), (200, 10, 10))
    for mode, name in (("CMYK", "c.jpg"), ("P", "p.png"), ("L", "l.png"), ("1", "b.png"), ("RGBA", "a.png")):
        red.convert(mode).save(tmp_path / name)
        opened = open_picture(tmp_path / name)
        assert (opened.mode, opened.size) == ("RGB", (8, 8))
        if mode in ("CMYK", "P", "RGBA"):
            assert np.abs(np.asarray(opened, int)[4, 4] - (200, 10, 10)).max() < 12


def test_transparent_becomes_white_and_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_picture(tmp_path / "clear.png").getpixel((1, 1)) == (255, 255, 255)
    Image.fromarray(np.linspace(1000, 60000, 64, dtype=np.uint16).reshape(8, 8)).save(tmp_path / "deep.png")
    shades = np.asarray(open_picture(tmp_path / "deep.png"))[..., 0]
    assert shades[0, 0] == 0
    assert 120 < shades[4, 0] < 136
    assert shades[7, 7] == 255


def test_a_picture_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (4, 10)


@pytest.mark.parametrize(
    ("colour", "words"),
    [
        ((200, 20, 20), "mostly red, dark"),
        ((250, 250, 250), "mostly white, very bright"),
        ((10, 10, 10), "mostly black, very dark"),
        ((30, 150, 156), "mostly teal, medium"),
        ((124, 78, 42), "mostly brown, dark"),
    ],
)
def test_colours_have_their_names(colour: tuple[int, int, int], words: str) -> None:
    assert colour_words(Image.new("RGB", (40, 40), colour)) == words


def test_a_second_colour_is_named_where_it_fills_enough() -> None:
    picture = Image.new("RGB", (40, 40), (255, 255, 255))
    picture.paste((45, 88, 196), (0, 0, 40, 14))
    assert colour_words(picture).startswith("mostly white and blue")
    picture.paste((255, 255, 255), (0, 0, 40, 10))
    assert colour_words(picture).startswith("mostly white,")


def test_large_pictures_are_made_smaller_in_their_proportions() -> None:
    picture = Image.new("RGB", (400, 100), "red")
    assert at_most(picture, 40_000) is picture
    small = at_most(picture, 10_000)
    assert small.size == (200, 50)
    assert small.getpixel((3, 3)) == (255, 0, 0)
    assert at_most(Image.new("RGB", (2000, 1)), 1000).size[1] == 1
