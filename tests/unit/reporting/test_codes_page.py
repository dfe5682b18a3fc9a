"""Semantic IDs on the page: their health, and the tree of their codes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reporting_world
from reporting_world import EVIL, ITEMS

from tessera.artifacts.codes import Part, SemanticIds, read_codes
from tessera.artifacts.tables import ArtifactError
from tessera.reporting.code_tree import chosen_rows, tree_data
from tessera.reporting.codes import CODE_COLUMNS, semantic_ids
from tessera.reporting.ranking_page import build
from tessera.reporting.samples import Catalogue
from tessera.settings.reporting import Report


@pytest.fixture(scope="module")
def catalogue(results: Path) -> Catalogue:
    return Catalogue(results / "bazaar" / "data")


@pytest.fixture(scope="module")
def files(results: Path) -> dict[str, dict[str, Path]]:
    return {kind: named["bazaar"] for kind, named in reporting_world.representation_files(results).items()}


def walked(node: list[Any], levels: int, prefix: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], int]]:
    """(codes, place) of every item below a node; what nodes say of themselves is checked on the way."""
    count, hidden, children = node
    if not levels:
        assert count == hidden + len(children)
        return [(prefix, place) for place in children]
    sizes = [child[1][0] for child in children]
    assert sizes == sorted(sizes, reverse=True)
    assert count == sum(sizes) or hidden
    return [found for code, child in children for found in walked(child, levels - 1, (*prefix, code))]


def test_the_tree_holds_every_item_under_its_codes(results: Path, files: dict[str, dict[str, Path]]) -> None:
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    data = next(found for found in map(json.loads, scripts) if "trees" in found)
    assert [(tree["recipe"], tree["part"]) for tree in data["trees"]] == [
        ("plain", "text"), ("modal", "text"), ("modal", "tuned")
    ]  # fmt: skip
    plain, _, pieces = data["trees"]
    assert plain["sizes"] == [3, 3, 3], "the level that tells items apart means nothing"
    assert plain["ordered"]
    assert not pieces["ordered"]
    ids = read_codes(files["codes"]["plain"], ITEMS)
    expected = sorted((tuple(row[:3]), f"{item:03d}") for item, row in enumerate(ids.codes.tolist()) if row[0] >= 0)
    found = sorted((codes, data["items"][place][1]) for codes, place in walked(plain["root"], 3))
    assert found == expected
    assert plain["items"] == plain["root"][0] == len(expected) == ITEMS - 1
    assert data["catalogue"] == ITEMS
    by_id = {raw: (title, count, picture) for title, raw, count, picture in data["items"]}
    assert by_id["001"][0] == EVIL[:110]
    assert by_id["001"][2] == 0, "the explorer of item tables holds its picture"
    assert "</script" not in scripts[-1]


def test_pictures_are_carried_where_no_explorer_holds_them(
    catalogue: Catalogue, files: dict[str, dict[str, Path]]
) -> None:
    found = semantic_ids(catalogue, files["codes"], files["health"], 1000, elsewhere={4})
    assert found is not None
    pictures = {raw: uri for _, raw, _, uri in json.loads(found.tree)["items"]}
    assert pictures["001"].startswith("data:image/")
    assert pictures["003"] is None
    assert pictures["004"] == 0


def test_large_catalogues_show_whole_branches(catalogue: Catalogue) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 10, (500, 3))
    chosen = chosen_rows(rows, 120)
    assert chosen == chosen_rows(rows, 120)
    assert len(chosen) == 120
    counts = Counter(rows[chosen, 0].tolist())
    whole = [code for code, count in counts.items() if count == (rows[:, 0] == code).sum()]
    assert len(whole) >= len(counts) - 1
    assert chosen_rows(rows, 500) == list(range(500))

    codes = np.concatenate([np.full((1, 3), -1), rng.integers(0, 3, (ITEMS, 3))])
    two = {name: SemanticIds(codes[:, ::step], (Part("t", (3, 3, 3)),)) for name, step in (("a", 1), ("b", -1))}
    both = json.loads(tree_data(catalogue, two, 10))
    assert 5 <= len(both["items"]) <= 10
    assert all(len(walked(tree["root"], 3)) == len(both["items"]) for tree in both["trees"])
    data = json.loads(tree_data(catalogue, {"a": SemanticIds(codes, (Part("t", (3, 3, 3)),))}, 10))
    tree = data["trees"][0]
    assert len(walked(tree["root"], 3)) == len(data["items"]) == 10
    assert tree["root"][0] == ITEMS
    assert tree["root"][1] + len(tree["root"][2]) == len(np.unique(codes[1:, 0]))
    for code, (count, _, _) in tree["root"][2]:
        assert count == (codes[:, 0] == code).sum(), "counts are of the whole catalogue"


def test_health_stands_in_the_table(catalogue: Catalogue, files: dict[str, dict[str, Path]]) -> None:
    found = semantic_ids(catalogue, files["codes"], files["health"], 100)
    assert found is not None
    assert [(name, levels) for name, levels, _ in found.rows] == [
        ("plain", f"3 × 3 × 3 + {read_codes(files['codes']['plain'], ITEMS).parts[0].sizes[-1]}"),
        ("modal: text", "3 × 3 × 3"),
        ("modal: tuned", "4 × 4"),
    ]
    said = json.loads(files["health"]["plain"].read_text())["parts"][0]
    cells = {key: cell for (key, _, _), cell in zip(CODE_COLUMNS, found.rows[0][2], strict=True)}
    assert cells["collision_rate"] == (said["meaningful_collision_rate"], f"{said['meaningful_collision_rate']:.2%}")
    assert cells["collision_rate"][0] > 0
    assert cells["items"] == (39, "39")
    assert cells["used"] == (1.0, "100.0%")
    assert cells["cosine"] == (0.9, "0.900")
    assert cells["tau_latent"] == (0.61, "0.610")
    assert cells["tau_reconstruction"] == (None, "–")
    assert cells["abundance"][0] == said["spectrum"]["latent"]["centred"]["information_abundance"]
    given = {key: cell for (key, _, _), cell in zip(CODE_COLUMNS, found.rows[1][2], strict=True)}
    assert given["unexplained"] == given["tau_latent"] == given["abundance"] == (None, "–")
    names = [plot.name for plot in found.plots]
    assert names == ["codes-use", "codes-groups", "codes-residuals", "codes-purity-description", "codes-spectrum-plain"]
    assert "plain, after level 2: 0.400 of the norm is left" in found.plots[2].description
    assert "latent: information abundance" in found.plots[4].description


def test_plots_are_written_beside_the_page(results: Path) -> None:
    folder = results / "report" / "plots" / "bazaar"
    assert {"codes-use.svg", "codes-spectrum-plain.svg"} <= {path.name for path in folder.iterdir()}


def test_categories_are_drawn_against_chance(
    catalogue: Catalogue, files: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    found = json.loads(files["health"]["plain"].read_text())
    row = {"majority": 0.9, "majority_by_chance": 0.3, "information": 0.8, "information_by_chance": 0.2}
    found["parts"][0]["purity"] = {"category": [{"level": level, **row} for level in (1, 2, 3)]}
    (tmp_path / "h.json").write_text(json.dumps(found))
    section = semantic_ids(catalogue, {}, {"plain": tmp_path / "h.json"}, 10)
    assert section is not None
    assert section.tree == ""
    plot = next(plot for plot in section.plots if plot.name == "codes-purity-category")
    assert "plain, level 1: information 0.800, by chance 0.200; majority 90.0%" in plot.description


def test_a_page_without_codes_has_no_such_section(results: Path, tmp_path: Path, catalogue: Catalogue) -> None:
    assert semantic_ids(catalogue, {}, {}, 100) is None
    runs = {"bazaar": reporting_world.run_paths(results)}
    build(tmp_path / "x.html", Report(), runs, {}, results)
    assert "Semantic IDs</h3>" not in (tmp_path / "x.html").read_text()
    build(
        tmp_path / "x.html",
        Report(explorer_items=0, explorer_users=0),
        runs,
        {},
        results,
        **(reporting_world.representation_files(results) | {"atlas": {}}),
    )
    text = (tmp_path / "x.html").read_text()
    assert "Semantic IDs</h3>" in text
    assert "application/json" not in text


def test_broken_files_are_named(tmp_path: Path, catalogue: Catalogue, files: dict[str, dict[str, Path]]) -> None:
    path = tmp_path / "h.json"
    with pytest.raises(ArtifactError, match=r"h\.json: no such file; expected what was measured"):
        semantic_ids(catalogue, {}, {"a": path}, 10)
    path.write_text('{"part": []}')
    with pytest.raises(ArtifactError, match="lacks the key 'parts'"):
        semantic_ids(catalogue, {}, {"a": path}, 10)
    path.write_text('{"parts": [{"name": "t", "size": [3]}]}')
    with pytest.raises(ArtifactError, match="part 't' lacks the key 'sizes'; did you mean 'size'"):
        semantic_ids(catalogue, {}, {"a": path}, 10)
    with pytest.raises(ArtifactError, match="is of kind 'captions', expected 'semantic_ids'"):
        semantic_ids(catalogue, {"a": files["captions"]["seen"]}, {}, 10)
