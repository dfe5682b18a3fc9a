"""Pictures that break, swell or come in odd modes."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

import tessera
from tessera.data.pictures import PictureError, at_most, open_picture
from tessera.language.colours import colour_words
from tessera.reporting.pictures import Pictures


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
    with pytest.raises(PictureError, match="File name too long"):
        open_picture(tmp_path / ("x" * 300 + ".png"))
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


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
0 0 moveto 10 10 lineto stroke
showpage
"""


def test_no_other_program_decodes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS under a harmless name would start Ghostscript, which runs programs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("gs", "gswin64c", "gswin32c"):
        (tools / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    for name in ("x.jpg", "x.png", "x.eps"):
        (tmp_path / name).write_bytes(EPS)
        with pytest.raises(PictureError, match="cannot be decoded"):
            open_picture(tmp_path / name)
    pictures = Pictures(str(tmp_path))
    assert pictures.uri("x.jpg") is None
    assert "cannot be decoded" in pictures.broken["x.jpg"]
    assert not (tmp_path / "started").exists()


def damaged(content: bytes, seed: int) -> bytes:
    """Some bytes changed, or the end cut off."""
    random = np.random.default_rng(seed)
    changed = bytearray(content)
    if seed % 3 == 0:
        return bytes(changed[: random.integers(1, len(changed))])
    for place in random.integers(0, len(changed) if seed % 3 == 1 else min(len(changed), 200), 1 + seed % 9):
        changed[place] = random.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_damaged_pictures_are_one_error(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{kind}")
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    pictures, broken = Pictures(str(tmp_path)), 0
    for seed in range(150):
        (tmp_path / f"{seed}.{kind}").write_bytes(damaged(whole, seed))
        try:
            readable = open_picture(tmp_path / f"{seed}.{kind}").mode == "RGB"
        except PictureError:
            readable = False
        broken += not readable
        assert readable or pictures.uri(f"{seed}.{kind}") is None
    assert broken > 20
    assert len(pictures.broken) == broken


def test_the_damaged_png_is_counted_everywhere(data_root: Callable[..., Path], tmp_path: Path) -> None:
    path = data_root("faults", "damaged.png")
    with pytest.raises(PictureError, match="cannot be decoded"):
        open_picture(path)
    small, large = Pictures(str(path.parent)), None
    large = small.sized(64)
    assert small.uri(path.name) is large.uri(path.name) is None
    assert len(small.tell_broken()) == 1


def test_an_avif_under_another_name_is_counted(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.avif")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.avif").read_bytes())
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.avif").read_bytes()[:200])
    pictures = Pictures(str(tmp_path))
    assert [pictures.uri(name) for name in ("a.jpg", "b.jpg")] == [None, None]
    assert sorted(pictures.broken) == ["a.jpg", "b.jpg"]


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A PNG of some kilobytes with 170 million pixels, which Pillow alone would decode."""
    rows = zlib.compress(b"\0" * (13_001 * 13_000 // 8), 9)
    head = struct.pack(">IIBBBBB", 13_000, 13_000, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert len(png) < 50_000
    (tmp_path / "bomb.png").write_bytes(png)
    program = (
        "import resource, sys\n"
        "from tessera.reporting.pictures import Pictures\n"
        "pictures = Pictures(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert pictures.uri('bomb.png') is None\n"
        "assert 'decompression bomb' in pictures.broken['bomb.png']\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, 'KiB'\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


@pytest.mark.parametrize(("size", "pixels"), [((10000, 50), 448 * 448), ((502, 100000), 448 * 448), ((1900, 10), 4096)])
def test_a_narrow_picture_that_is_made_smaller_is_not_too_narrow(size: tuple[int, int], pixels: int) -> None:
    """Cutting the short side to whole pixels made it narrower than image processors take."""
    made = at_most(Image.new("RGB", size), pixels)
    assert max(made.size) <= 200 * min(made.size)
    assert made.width * made.height <= pixels * 1.5
    assert (made.width > made.height) == (size[0] > size[1])


def test_large_pictures_take_one_copy(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (6000, 4000), (0, 0, 255, 128))
    picture.save(tmp_path / "large.png")
    opened = open_picture(tmp_path / "large.png")
    assert opened.size == (3000, 2000)
    red, green, blue = opened.getpixel((1000, 1000))  # type: ignore[misc]
    assert (abs(red - 127) < 2, abs(green - 127) < 2, blue) == (True, True, 255)
    picture.resize((4000, 4000)).save(tmp_path / "whole.png")
    assert open_picture(tmp_path / "whole.png").size == (4000, 4000)


def test_what_a_picture_carries_stays_behind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where it was taken"
    Image.new("RGB", (9, 9)).save(tmp_path / "x.jpg", exif=exif, comment=b"secret")
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png", pnginfo=_note())
    for name in ("x.jpg", "x.png"):
        assert open_picture(tmp_path / name).info == {}
        uri = Pictures(str(tmp_path)).uri(name)
        assert uri is not None
        content = base64.b64decode(uri.partition(",")[2])
        assert b"secret" not in content
        assert b"taken" not in content


def _note() -> PngInfo:
    note = PngInfo()
    note.add_text("note", "secret")
    return note


def test_a_side_bounds_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (900, 300), "red").save(tmp_path / "x.jpg")
    Image.new("P", (30, 10)).save(tmp_path / "x.gif")
    assert open_picture(tmp_path / "x.jpg", 96).size == (96, 32)
    assert open_picture(tmp_path / "x.gif", 96).size == (30, 10)


def test_nothing_else_opens_pictures() -> None:
    """The guard is in one place: no other module of the library calls Pillow's `open`."""
    source = Path(tessera.__file__).parent
    found = [
        path for path in source.rglob("*.py") if re.search(r"Image\.open\(|imread\(|load_image\(", path.read_text())
    ]
    assert [path.relative_to(source).as_posix() for path in found] == ["data/pictures.py"]
