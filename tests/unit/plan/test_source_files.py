"""What the job that reads a log depends on: the files that are read, one by one, never the folder around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tessera.plan.required import dataset_files
from tessera.settings.config import load
from tessera.settings.kinds import implementation, settings_class, tags
from tessera.settings.sources.base import FileSource

COLUMNS = {"source": "columns", "timestamp": "time"}


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("user,item,time\nu,1,5\n")


def named(folder: Path, **dataset: Any) -> list[str]:
    """What the job reads, below a folder."""
    config = load({"datasets": {"d": dataset}, "experiment": {"datasets": ["d"], "systems": ["popular"]}})
    return [path.relative_to(folder).as_posix() for path in dataset_files(config, "d")]


@pytest.mark.parametrize(
    ("there", "dataset", "read"),
    [
        (["u.data", "u.item", "u.user", "README"], {"source": "movielens"}, ["u.data", "u.item"]),
        (["ratings.csv.gz", "links.csv"], {"source": "movielens"}, ["ratings.csv.gz"]),
        (
            ["valid/A_1.csv", "test/A_1.csv", "test/B_1.csv", "index/A.item.json", "index/A.index.json", "info/A.txt"],
            {"source": "minionerec", "category": "A"},
            ["valid/A_1.csv", "test/A_1.csv", "index/A.item.json"],
        ),
        (["part-10.csv", "part-2.csv", "_SUCCESS", ".part-2.crc", "notes"], COLUMNS, ["part-2.csv", "part-10.csv"]),
        (["day=1/a.parquet", "readme.md"], COLUMNS, ["day=1/a.parquet"]),
    ],
    ids=["ml-100k", "packed", "minionerec", "parts", "parquet"],
)
def test_of_a_folder_those_that_are_read(
    there: list[str], dataset: dict[str, Any], read: list[str], tmp_path: Path
) -> None:
    files(tmp_path, *there)
    assert named(tmp_path, path=str(tmp_path), **dataset) == read


def test_a_log_its_items_and_no_pictures(tmp_path: Path) -> None:
    files(tmp_path, "log.csv", "items/part-0.csv", "items/_SUCCESS", "pictures/1.png")
    given = {"items": {"path": str(tmp_path / "items"), "id": "item"}, "images": str(tmp_path / "pictures")}
    assert named(tmp_path, path=str(tmp_path / "log.csv"), **COLUMNS, **given) == ["log.csv", "items/part-0.csv"]


def test_every_source_that_reads_a_folder_says_which_files() -> None:
    kinds = {tag: settings_class("sources", tag) for tag in tags("sources")}
    of_folders = {tag: kind for tag, kind in kinds.items() if issubclass(kind, FileSource) and kind.READS_FOLDER}
    assert of_folders.keys() >= {"movielens", "minionerec"}
    for tag, kind in of_folders.items():
        assert hasattr(implementation(kind.model_construct(source=tag)), "files"), tag
