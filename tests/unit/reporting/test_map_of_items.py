"""What the page's script gets of the maps of item tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import reporting_world

from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.reporting import atlas
from tessera.reporting.atlas import atlas_data
from tessera.reporting.samples import Catalogue

Files = dict[str, Path]


@pytest.fixture(scope="module")
def catalogue(results: Path) -> Catalogue:
    return Catalogue(results / "bazaar" / "data")


@pytest.fixture(scope="module")
def maps(results: Path) -> Files:
    return reporting_world.representation_files(results)["atlas"]["bazaar"]


def test_every_item_stands_where_its_map_has_it(catalogue: Catalogue, maps: Files) -> None:
    data = json.loads(atlas_data(catalogue, maps, frozenset()))
    assert [id for _, id, _ in data["items"]] == [f"{item:03d}" for item in range(1, 41)]
    assert [count for *_, count in data["items"]] == catalogue.counts[1:].tolist()
    assert [(table["name"], table["method"]) for table in data["tables"]] == [("text", "pca"), ("tuned", "tsne")]
    for table in data["tables"]:
        rows = {row["item"]: row for row in read_table(maps[table["name"]], "atlas").to_pylist()}
        points = np.array([table["x"], table["y"]]).T
        absent = [item for item in range(1, 41) if item not in rows]
        assert [item for item in range(1, 41) if (points[item - 1] == -1).all()] == absent
        there = np.array([[row["x"], row["y"]] for row in rows.values()])
        shown = np.array([points[item - 1] for item in rows])
        assert shown.min() >= 0
        assert shown.max() <= 1000
        # one scale for both directions: distances are those of the map
        scale = 1000 / np.ptp(there, axis=0).max()
        np.testing.assert_allclose(np.diff(shown, axis=0), np.diff(there, axis=0) * scale, atol=1.01)


def test_colours_are_codes_attributes_and_popularity(tmp_path: Path, catalogue: Catalogue, maps: Files) -> None:
    table = read_table(maps["text"], "atlas")
    kinds = [None if item == 2 else f"kind {min(item % 12, 10)}" for item in table.column("item").to_pylist()]
    path = tmp_path / "text.parquet"
    write_table(path, table.append_column("attribute_kind", pa.array(kinds)), "atlas", {"method": "pca"})
    data = json.loads(atlas_data(catalogue, {"text": path}, frozenset()))
    popularity, *attributes = data["colours"]
    assert [colouring["name"] for colouring in attributes] == ["description", "kind"]
    kind = attributes[-1]
    assert popularity["ordered"]
    for (*_, count), place in zip(data["items"], popularity["of"], strict=True):
        span = [int(number) for number in popularity["values"][place].removesuffix(" in train").split(" to ")]
        first, last = span[0], span[-1]
        assert first <= count <= last
    assert kind["name"] == "kind"
    assert len(kind["values"]) == atlas.COLOURS
    named = [*kind["values"], "another", None]
    assert [named[place] for place in kind["of"]] == [
        name if name is None or name in kind["values"] else "another" for name in kinds
    ]
    rows = {row["item"]: row for row in table.to_pylist()}
    for colouring in data["tables"][0]["colours"]:
        codes = [rows[item][f"code_{colouring['name']}"] for item in range(1, 41)]
        assert [None if place < 0 else colouring["values"][place] for place in colouring["of"]] == codes
    assert [colouring["name"] for colouring in data["tables"][0]["colours"]] == ["plain", "modal"]


def test_of_many_items_those_with_pictures_and_always_the_same(catalogue: Catalogue, maps: Files) -> None:
    explored = frozenset({5, 17, 30})
    text = atlas_data(catalogue, maps, explored, most=10)
    data = json.loads(text)
    ids = [int(id) for _, id, _ in data["items"]]
    assert len(ids) == 10
    assert explored < set(ids)
    assert data["catalogue"] == 40
    assert all(len(table["x"]) == 10 for table in data["tables"])
    assert atlas_data(Catalogue(Path(catalogue.image_root or "").parents[1] / "data"), maps, explored, most=10) == text


def test_titles_cannot_end_the_script(catalogue: Catalogue, maps: Files) -> None:
    text = atlas_data(catalogue, maps, frozenset())
    assert "</" not in text
    assert reporting_world.EVIL[:110] in [title for title, *_ in json.loads(text)["items"]]


def test_no_map_and_no_file(tmp_path: Path, catalogue: Catalogue) -> None:
    assert atlas_data(catalogue, {}, frozenset()) == ""
    with pytest.raises(ArtifactError, match=r"t\.parquet: no such file; expected a Parquet artifact of kind 'atlas'"):
        atlas_data(catalogue, {"t": tmp_path / "t.parquet"}, frozenset())
