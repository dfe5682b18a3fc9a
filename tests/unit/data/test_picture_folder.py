"""Which picture of a folder is an item's, and which never is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tessera.data.files import DataFileError
from tessera.data.picture_folder import PictureFolder

LOG = {"source": "columns", "timestamp": "t", "cleaning": {"core": None}}


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_ids_are_met_as_a_whole(tmp_path: Path) -> None:
    root = folder(tmp_path, "1.jpg", "12.jpg", "1.5.png", "shoes/7.jpg", "hats/7.jpg", "summer/8.gif", "1.0.jpg")
    known = {"1", "1.5", "1.25", "shoes/12", "hats/12", "12", "shoes/7", "7", "8", "1.jpg", "x.y/1"}
    pictures = PictureFolder(root, known)
    found = {raw_id: pictures.find(raw_id) for raw_id in sorted(known)}
    assert found == {
        "1": "1.jpg",
        "1.5": "1.5.png",
        "1.25": None,
        "12": "12.jpg",
        "shoes/12": None,
        "hats/12": None,
        "shoes/7": "shoes/7.jpg",
        "7": None,
        "8": "summer/8.gif",
        "1.jpg": "1.jpg",
        "x.y/1": None,
    }


def test_a_file_of_one_item_is_no_others(tmp_path: Path) -> None:
    pictures = PictureFolder(folder(tmp_path, "shoes/12.jpg"), {"12", "shoes/12"})
    assert pictures.find("shoes/12") == "shoes/12.jpg"
    assert pictures.find("12") is None
    assert pictures.find("12", ["12.png"]) is None, "only the suffix is another, but it is the picture of shoes/12"
    assert PictureFolder(tmp_path, {"12"}).find("12") == "shoes/12.jpg"


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures", "7.jpg/cover.txt", "a/8.png", "9.svg/x.txt", "elsewhere/x.txt")
    (root / "10.png").symlink_to(root / "elsewhere")
    pictures = PictureFolder(root, {"7", "8", "10"})
    assert [pictures.find(raw_id) for raw_id in ("7", "8", "10")] == [None, "a/8.png", None]
    assert pictures.tell()["files"] == 1
    assert pictures.left_out == {}


def test_several_pictures_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = PictureFolder(folder(tmp_path, "a/7.jpg", "b/7.jpg", "8.png", "8.jpg"), {"7", "8"})
    assert pictures.find("7") is None
    assert pictures.find("8") == "8.jpg"
    assert pictures.tell() == {"files": 4, "several": 1, "doubled": 1, "other_formats": 0}
    assert "1 items could have several pictures and get none ('7': 'a/7.jpg', 'b/7.jpg')" in caplog.text
    assert "'8': '8.jpg', '8.png'" in caplog.text


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("p.jpg", "p.jpg"),
        ("./p.jpg", "p.jpg"),
        ("p", "p.jpg"),
        ("p.png", "p.jpg"),  # a real file name: the same picture in another format
        ("p.5", None),
        ("p.5.jpg", None),
        ("deep.webp", "sub/deep.webp"),
        ("sub/deep.webp", "sub/deep.webp"),
        ("sub\\deep.webp", "sub/deep.webp"),
        ("sub/deep.jpg", "sub/deep.webp"),
        ("other/deep.webp", None),
        ("pictures/p.jpg", "p.jpg"),  # a path that begins above the folder
        ("https://shop/img/p.jpg?size=9", "p.jpg"),
        ("https://shop/img/a%20b.png", "a b.png"),
        ("twice.jpg", None),
        ("../p.jpg", None),
        ("", None),
        ("/", None),
    ],
)
def test_names_of_pictures(tmp_path: Path, named: str, expected: str | None) -> None:
    root = folder(tmp_path / "pictures", "p.jpg", "sub/deep.webp", "a b.png", "x/twice.jpg", "y/twice.jpg")
    assert PictureFolder(root, {"item"}).find("item", [named]) == expected


def test_other_formats_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataFileError, match=r"holds no pictures .*it holds 2 \.avif, 1 \.svg, which are not read"):
        PictureFolder(folder(tmp_path / "a", "1.avif", "2.AVIF", "3.svg", "notes.txt"), {"1"})
    pictures = PictureFolder(folder(tmp_path / "b", "1.GIF", "2.bmp", "3.tiff", "4.avif"), {"1", "2", "3", "4"})
    assert [pictures.find(raw_id) for raw_id in "1234"] == ["1.GIF", "2.bmp", "3.tiff", None]
    assert "pictures of other formats are left out: 1 .avif" in caplog.text


def test_a_shop_whose_ids_have_points(
    make: Callable[..., Any], write: Callable[..., str], data_root: Callable[..., Path]
) -> None:
    ids = ["1", "1.5", "1.25", "2", "2.75", "shoes/1", "hats/1"]
    path = write("log.csv", "user,item,t\n" + "".join(f"u,{raw_id},{n}\n" for n, raw_id in enumerate(ids)))
    made = make(path=path, images=str(data_root("faults", "img_float")), **LOG)
    assert {raw_id: item["image"] for raw_id, item in made.items.items()} == {"1": "1.jpg", "2": "2.jpg"}
    assert made.stats["image_share"] == 2 / 7


def test_gifs_and_bitmaps_become_pictures_of_items(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p").mkdir()
    for name in ("1.gif", "2.bmp", "3.png"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / "p" / name)
    log = "user,item,t\n" + "".join(f"u,{n},{n}\n" for n in range(1, 9))
    with caplog.at_level("INFO"):
        made = make(path=write("log.csv", log), images=str(tmp_path / "p"), **LOG)
    assert {raw_id: item["image"] for raw_id, item in made.items.items()} == {"1": "1.gif", "2": "2.bmp", "3": "3.png"}
    assert made.stats["image_share"] == 3 / 8
    assert "WARNING" in caplog.text
    assert "meets 3 of 8 items of the log (37.5%); not met: '4', '5', '6', ..." in caplog.text


def test_a_folder_of_other_names_is_an_error(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path
) -> None:
    path = write("log.csv", "user,item,t\n" + "".join(f"u,{n},{n}\n" for n in range(1, 9)))
    pictures = folder(tmp_path / "p", *(f"{n:05d}.jpg" for n in range(1, 9)))
    with pytest.raises(DataFileError) as caught:
        make(path=path, images=str(pictures), **LOG)
    told = str(caught.value)
    assert "(images): meets 0 of 8 items of the log (0.0%); not met: '1', '2', '3', ..." in told
    assert "in the file alone: '00001', '00002', '00003', ..." in told
    assert "8 more would meet without the zeros before them" in told
    assert not list(tmp_path.glob("made-*/raw/items.parquet")), "nothing is written by halves"


def test_what_an_item_has_by_another_name_is_not_in_the_folder_alone(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By its sub-folder, or by the items file: such pictures were told as met by nobody."""
    path = write("log.csv", "user,item,t\n" + "".join(f"u,{n},{n}\n" for n in range(1, 5)))
    items = write("items.csv", "sku,picture\n3,lamp.png\n")
    pictures = folder(tmp_path / "p", "1.jpg", "1.png", "summer/2.jpg", "lamp.png", "other.gif")
    items_file = {"path": items, "id": "sku", "image": "picture"}
    with caplog.at_level("INFO"):
        made = make(path=path, images=str(pictures), items=items_file, **LOG)
    assert {raw_id: item["image"] for raw_id, item in made.items.items()} == {
        "1": "1.jpg", "2": "summer/2.jpg", "3": "lamp.png",
    }  # fmt: skip
    told = next(line for line in caplog.text.splitlines() if "(images)" in line)
    assert told.endswith("meets 3 of 4 items of the log (75.0%); not met: '4'; in the file alone: 'other'")
