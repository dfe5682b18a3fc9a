"""Another picture under an old name makes again what looks at pictures, and nothing else; the log is not read again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_project import Project, copy_repository

pytestmark = pytest.mark.workflow

ITEMS = 12
MODEL = {
    "built": "qwen2.5-vl", "hidden": 32, "layers": 1, "vision_layers": 1, "heads": 2, "vocabulary": 500,
    "training": {"steps": 1, "batch": 4},
}  # fmt: skip
TRAINING = {"epochs": 1, "patience": 1, "validation_users": 10, "batch_tokens": 400}


def config() -> dict[str, Any]:
    """Lamps with pictures, which captions, a table and a model look at, and others do not."""
    return {
        "datasets": {
            "lamps": {
                "source": "columns", "path": "log", "timestamp": "time",
                "items": {"path": "items.csv", "id": "id", "title": "title"}, "images": "pictures",
            }
        },
        "models": {"own": MODEL, "drawn": {**MODEL, "pictures": "drawn"}},
        "captions": {
            "seen": {"model": "drawn", "source": "image", "max_new_tokens": 3},
            "told": {"model": "drawn", "source": "text", "max_new_tokens": 3},
        },
        "tables": {
            "looked": {"recipe": "hidden", "model": "drawn", "source": "both"},
            "said": {"recipe": "text", "model": "drawn", "captions": ["seen"]},
            "read": {"recipe": "text", "model": "drawn", "captions": ["told"]},
            "learned": {"recipe": "text", "model": "own"},
        },
        "systems": {name: {"items": {"table": name}} for name in ("looked", "said", "read", "learned")},
        "training": TRAINING,
        "experiment": {
            "datasets": ["lamps"], "systems": ["popular", "looked", "said", "read", "learned"],
            "backbones": ["gru4rec"], "seeds": [1],
        },
    }  # fmt: skip


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (56, 56, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A log with pictures, worked through to its end."""
    project = Project(tmp_path_factory.mktemp("lamps") / "tessera")
    copy_repository(project.folder)
    rows = [f"u{user},i{1 + (user + step) % ITEMS},{1000 + step}" for user in range(30) for step in range(6)]
    (project.folder / "log").mkdir()
    (project.folder / "log/part-0.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    items = [f"i{item},Oak lamp No. {item}" for item in range(1, ITEMS + 1)]
    (project.folder / "items.csv").write_text("id,title\n" + "\n".join(items) + "\n")
    for item in range(1, ITEMS + 1):
        draw(project.folder / f"pictures/i{item}.png", item)
    project.write_config(config(), "lamps.yaml")
    done = project.snakemake("--cores", "2", "--configfile", "lamps.yaml")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def runs(count: int) -> dict[str, int]:
    return {"train": count, "evaluate": count, "tables": 1, "report": 1}


# of the three systems that look: by a table of its own, by captions, and by the model that learned from the pictures
LOOK = {"pretrain": 1, "caption": 1, "embed": 3, "diagnose": 3, "atlas": 3, **runs(3)}


def test_what_looks_is_made_again_and_nothing_else(lamps: Project) -> None:
    assert lamps.stale("lamps.yaml") == {}
    (lamps.folder / "pictures/notes.txt").write_text("no picture")
    assert lamps.stale("lamps.yaml") == {}
    draw(lamps.folder / "pictures/i3.png", 100)  # in place: the folder is as old as before
    assert lamps.stale("lamps.yaml") == LOOK
    captions = "results/tiny/lamps/captions/seen.parquet"
    done = lamps.snakemake(captions, "--cores", "2", "--configfile", "lamps.yaml")
    assert done.returncode == 0, done.stdout[-6000:]
    # what reads the captions is stale only where the model says something else of the new picture
    left = lamps.stale("lamps.yaml")
    count = left.get("embed", 0)
    assert count in (2, 3)
    assert left == {"pretrain": 1, "embed": count, "diagnose": count, "atlas": count, **runs(count)}
    draw(lamps.folder / "pictures/new.tmp.png", 101)  # as a copy by rsync comes: the folder is newer, its names are not
    (lamps.folder / "pictures/new.tmp.png").replace(lamps.folder / "pictures/i3.png")
    assert lamps.stale("lamps.yaml") == LOOK


def test_another_name_is_read_with_the_log(lamps: Project) -> None:
    picture = lamps.folder / "pictures/i5.png"
    picture.rename(lamps.folder / "i5.png")
    try:
        assert lamps.stale("lamps.yaml")["ingest"] == 1
    finally:
        (lamps.folder / "i5.png").rename(picture)
    assert "ingest" not in lamps.stale("lamps.yaml")


def test_a_folder_of_a_log_is_the_files_that_are_read(lamps: Project) -> None:
    part, notes = lamps.folder / "log/part-0.csv", lamps.folder / "log/notes.txt"
    notes.write_text("no log")  # the folder is newer
    assert "ingest" not in lamps.stale("lamps.yaml")
    before, status = part.read_text(), part.stat()
    part.write_text(before.replace("u7,i9", "u7,i8"))  # in place: the folder is as old as before
    try:
        assert part.read_text() != before
        assert lamps.stale("lamps.yaml")["ingest"] == 1
    finally:
        part.write_text(before)
        os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "ingest" not in lamps.stale("lamps.yaml")


def test_a_folder_that_is_gone_is_told_first(lamps: Project) -> None:
    folder = lamps.folder / "pictures"
    folder.rename(lamps.folder / "elsewhere")
    try:
        done = lamps.snakemake("-n", "--configfile", "lamps.yaml")
    finally:
        (lamps.folder / "elsewhere").rename(folder)
    assert done.returncode != 0
    assert "datasets.lamps.images: pictures: no such file or folder" in done.stdout
