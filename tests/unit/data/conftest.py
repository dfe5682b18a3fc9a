"""From a config section to the artifacts of ingest and prepare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from tessera.artifacts.files import read_json
from tessera.data.ingest import ingest
from tessera.data.prepare import prepare
from tessera.settings.sources.base import Dataset, ingest_settings, prepare_settings


class Made:
    """What the two stages wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def raw(self, name: str) -> pa.Table:
        return pq.read_table(self.folder / "raw" / f"{name}.parquet")

    def data(self, name: str) -> pa.Table:
        return pq.read_table(self.folder / "data" / f"{name}.parquet")

    @property
    def log(self) -> list[tuple[Any, ...]]:
        """User, item, timestamp, rating, split of the raw rows."""
        return [tuple(row.values())[:5] for row in self.raw("interactions").to_pylist()]

    @property
    def rejected(self) -> list[tuple[str, int, str, str]]:
        return [tuple(row.values()) for row in self.raw("rejected").to_pylist()]  # type: ignore[misc]

    @property
    def items(self) -> dict[str, dict[str, Any]]:
        """Raw items by raw id; attributes as a dict."""
        rows = self.raw("items").to_pylist()
        return {row["raw_id"]: {**row, "attributes": dict(row["attributes"])} for row in rows}

    @property
    def stats(self) -> dict[str, Any]:
        return dict(read_json(self.folder / "data" / "stats.json"))

    def histories(self) -> dict[str, list[tuple[str, str]]]:
        """Raw item and split of every row, by raw user, in order."""
        users = dict(zip(*self.data("users").to_pydict().values(), strict=True))
        items = dict(zip(*self.data("items").select(["item", "raw_id"]).to_pydict().values(), strict=True))
        found: dict[str, list[tuple[str, str]]] = {}
        for row in self.data("interactions").to_pylist():
            found.setdefault(users[row["user"]], []).append((items[row["item"]], row["split"]))
        return found


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """`make(source=..., path=..., ...)`: run ingest, and prepare unless `only_raw`."""
    count = 0

    def run(only_raw: bool = False, **section: Any) -> Made:
        nonlocal count
        count += 1
        folder = tmp_path / f"made-{count}"
        settings = TypeAdapter[Any](Dataset).validate_python(section)
        ingest(ingest_settings(settings), folder / "raw")
        if not only_raw:
            prepare(folder / "raw", folder / "data", prepare_settings(settings))
        return Made(folder)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    """`write("name.csv", text)`: a file, and its path."""

    def run(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return run
