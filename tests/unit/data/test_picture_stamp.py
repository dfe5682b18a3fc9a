"""The stamp of a folder of pictures changes with every picture, and with nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tessera.artifacts.files import read_json
from tessera.data import picture_stamp
from tessera.data.picture_stamp import look_again, names_fingerprint, write_stamp


def draw(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1.png", "2.PNG", "shoes/3.png"):
        draw(tmp_path / "pictures" / name, "red")
    (tmp_path / "pictures/notes.txt").write_text("no picture")
    (tmp_path / "pictures/gone.png").symlink_to(tmp_path / "nowhere.png")
    return tmp_path / "pictures"


@pytest.fixture
def stamp(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "raw/pictures.json"
    write_stamp(path, str(folder))
    return path


def in_place(folder: Path) -> None:
    draw(folder / "1.png", "blue")  # as many bytes, and the folder is as old as before


def other_file(folder: Path) -> None:
    draw(folder / "new.tmp.png", "blue")
    (folder / "new.tmp.png").replace(folder / "shoes/3.png")


def size_alone(folder: Path) -> None:
    status = (folder / "1.png").stat()
    with (folder / "1.png").open("ab") as file:
        file.write(b"more")
    os.utime(folder / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "renamed"),
    [
        (in_place, False),
        (other_file, False),
        (size_alone, False),
        (lambda folder: draw(folder / "4.png", "red"), True),
        (lambda folder: (folder / "2.PNG").unlink(), True),
        (lambda folder: (folder / "1.png").rename(folder / "5.png"), True),
    ],
)
def test_every_picture_counts(folder: Path, stamp: Path, change: Callable[[Path], object], renamed: bool) -> None:
    assert read_json(stamp)["pictures"] == 4
    names = names_fingerprint.__wrapped__(str(folder))
    before = stamp.stat().st_mtime_ns
    assert not look_again(stamp)
    assert stamp.stat().st_mtime_ns == before
    change(folder)
    assert look_again(stamp)
    assert stamp.stat().st_mtime_ns > before
    assert not look_again(stamp)
    assert (names_fingerprint.__wrapped__(str(folder)) != names) == renamed


def test_what_is_no_picture_counts_nothing(folder: Path, stamp: Path) -> None:
    (folder / "notes.txt").write_text("other notes")
    (folder / "more.csv").write_text("a")
    (folder / "empty").mkdir()
    assert not look_again(stamp)


def test_a_folder_may_move(folder: Path, stamp: Path, tmp_path: Path) -> None:
    write_stamp(tmp_path / "other.json", str(folder.rename(tmp_path / "moved")))
    one, other = read_json(stamp), read_json(tmp_path / "other.json")
    assert one.pop("folder") != other.pop("folder")
    assert one == other
    assert not look_again(stamp)  # whoever looks for a picture there says so


def test_without_pictures_or_a_stamp_nothing_is_done(tmp_path: Path) -> None:
    assert not look_again(tmp_path / "none.json")
    write_stamp(tmp_path / "bare.json", None)
    assert read_json(tmp_path / "bare.json")["pictures"] == 0
    assert not look_again(tmp_path / "bare.json")
    (tmp_path / "bare.json").write_text("{")
    with pytest.raises(ValueError, match=r"bare\.json: is cut off, damaged or no JSON"):
        look_again(tmp_path / "bare.json")


def test_a_look_opens_no_picture(folder: Path, stamp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.rglob("*.png"):
        if not path.is_symlink():
            path.chmod(0)
    monkeypatch.setattr(picture_stamp, "write_json", None)
    assert not look_again(stamp)
