"""The stage: from item tables and a dataset to the files of semantic IDs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter

from tessera.artifacts.codes import ABSENT, read_codebooks, read_codes
from tessera.artifacts.tables import ArtifactError, describe, read_item_table, write_item_table, write_table
from tessera.quantization.base import load_quantizer
from tessera.quantization.quantize import quantize
from tessera.settings.quantizers.base import SemanticIds

torch.set_num_threads(1)

ITEMS, USERS, WARM = 60, 12, 50
"""Items above WARM are in nobody's training history."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset in `data`, and the tables a, b (b lacks items 1..5) and run, the vectors of a run."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {"user": [], "item": [], "position": [], "split": []}
    for user in range(1, USERS + 1):
        columns["user"] += [user] * 10
        columns["item"] += [(user * 7 + k * 5) % WARM + 1 for k in range(8)] + [ITEMS - 1, ITEMS]
        columns["position"] += range(10)
        columns["split"] += ["train"] * 8 + ["valid", "test"]
    n = len(columns["user"])
    rows = pa.table({**columns, "timestamp": pa.nulls(n, pa.int64()), "rating": pa.nulls(n, pa.float32())})
    write_table(tmp_path / "data/interactions.parquet", rows, "interactions")
    numbers = list(range(1, ITEMS + 1))
    catalogue = {
        "item": numbers, "raw_id": [f"i{i}" for i in numbers], "title": ["x"] * ITEMS,
        "attributes": pa.array([[] for _ in numbers], pa.map_(pa.string(), pa.string())),
        "image": pa.nulls(ITEMS, pa.string()),
    }  # fmt: skip
    write_table(tmp_path / "data/items.parquet", pa.table(catalogue), "items")
    users = {"user": list(range(1, USERS + 1)), "raw_id": [f"u{u}" for u in range(1, USERS + 1)]}
    write_table(tmp_path / "data/users.parquet", pa.table(users), "users")
    for name, first, inputs in (("a", 1, {}), ("b", 6, {}), ("run", 1, {"run": "0123"})):
        items = np.arange(first, ITEMS + 1)
        vectors = rng.standard_normal((len(items), 5)).astype(np.float32)
        write_item_table(tmp_path / f"{name}.parquet", items, vectors, {}, inputs)
    return tmp_path


def run(folder: Path, name: str = "out", **settings: Any) -> Path:
    chosen = TypeAdapter[SemanticIds](SemanticIds).validate_python({"levels": 2, "codes": 7, **settings})
    output = folder / name / "codes.parquet"
    tables = {table: folder / f"{table}.parquet" for table in getattr(chosen, "tables", [])}
    source = folder / chosen.path if chosen.quantizer == "given" else None
    quantize(chosen, tables, source, folder / "data", output, folder / "state", "code")
    return output


def test_the_files_and_what_they_say(folder: Path) -> None:
    output = run(folder, quantizer="rq_kmeans", tables=["a", "b"], conflicts="none")
    ids = read_codes(output, ITEMS)
    assert [(part.name, part.sizes, part.ordered, part.extra) for part in ids.parts] == [("a+b", (7, 7), True, False)]
    assert np.flatnonzero(ids.present(0)).tolist() == list(range(6, ITEMS + 1))
    assert (ids.codes[:6] == ABSENT).all()
    assert set(describe(output)["inputs"]) == {"a", "b"}
    assert sorted(read_codebooks(output)) == [(0, 0), (0, 1)]
    told = json.loads(output.with_name("model.json").read_text())
    colliding = 55 - len(np.unique(ids.codes[6:], axis=0))
    assert told["parts"][0]["collisions"] == {"items": 55, "before": colliding, "after": colliding, "moved": 0}
    assert [json.loads(row)["level"] for row in output.with_name("history.jsonl").read_text().splitlines()] == [1, 2]
    assert load_quantizer(output.with_name("model.safetensors")).parts[0].sizes == (7, 7)


@pytest.mark.parametrize(("conflicts", "levels"), [("extra_level", 3), ("nearest", 2), ("sinkhorn", 2)])
def test_no_two_items_keep_the_same_codes(folder: Path, conflicts: str, levels: int) -> None:
    # 60 items, two levels of eight codes: they fit, and some collide
    plain = read_codes(run(folder, "plain", quantizer="rq_kmeans", tables="a", codes=[8, 20], conflicts="none"), ITEMS)
    output = run(folder, quantizer="rq_kmeans", tables="a", codes=[8, 20], conflicts=conflicts)
    ids = read_codes(output, ITEMS)
    assert len(np.unique(plain.codes[1:], axis=0)) < ITEMS
    assert len(np.unique(ids.codes[1:], axis=0)) == ITEMS
    assert ids.codes.shape == (ITEMS + 1, levels)
    assert ids.parts[0].extra == (conflicts == "extra_level")
    assert np.array_equal(ids.codes[1:, 0], plain.codes[1:, 0])
    told = json.loads(output.with_name("model.json").read_text())["parts"][0]["collisions"]
    assert told["after"] == 0 < told["before"]


def test_a_part_a_table(folder: Path) -> None:
    training = {"steps": 4, "device": "cpu"}
    output = run(folder, quantizer="mm_rq_vae", tables=["a", "b"], hidden=[8], dim=4, training=training)
    ids = read_codes(output, ITEMS)
    assert [part.name for part in ids.parts] == ["a", "b"]
    assert ids.present(0)[1:].all()
    assert np.flatnonzero(ids.present(1)).tolist() == list(range(6, ITEMS + 1))
    row = json.loads(output.with_name("history.jsonl").read_text().splitlines()[-1])
    assert {"cosine a", "cosine b", "mmd", "alignment", "reconstruction", "codes"} <= set(row)
    assert not list((folder / "state").rglob("checkpoint.safetensors"))


def test_cold_items_are_not_fitted_to_vectors_of_a_run_but_get_codes(folder: Path) -> None:
    before = read_codebooks(run(folder, "before", quantizer="rq_kmeans", tables="run", conflicts="none"))
    changed = np.random.default_rng(1).standard_normal((ITEMS, 5)).astype(np.float32)
    vectors, _ = read_item_table(folder / "run.parquet", ITEMS)
    changed[:WARM] = vectors[1 : WARM + 1]
    write_item_table(folder / "run.parquet", np.arange(1, ITEMS + 1), changed, {}, {"run": "0123"})
    output = run(folder, "after", quantizer="rq_kmeans", tables="run", conflicts="none")
    after = read_codebooks(output)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert read_codes(output, ITEMS).present(0)[1:].all()
    write_item_table(folder / "run.parquet", np.arange(1, ITEMS + 1), changed, {"recipe": "text"})
    other = read_codebooks(run(folder, "text", quantizer="rq_kmeans", tables="run", conflicts="none"))
    assert not torch.equal(before[0, 0], other[0, 0])


def test_too_few_items_are_told(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="semantic IDs of a: 60 items to fit 64 codes a level; set codes to 60"):
        run(folder, quantizer="rq_kmeans", tables="a", codes=64)
    with pytest.raises(ArtifactError, match="semantic IDs of run: 50 items to fit 55 codes"):
        run(folder, quantizer="pq", tables="run", codes=55)
    write_item_table(folder / "b.parquet", np.array([1, 2]), np.eye(2, dtype=np.float32))
    with pytest.raises(ArtifactError, match=r"semantic IDs of a\+b: 2 items"):
        run(folder, quantizer="rq_kmeans", tables=["a", "b"])


def test_tables_with_hardly_an_item_in_common_are_told(folder: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((31, 4)).astype(np.float32)
    write_item_table(folder / "low.parquet", np.arange(1, 31), rows[:30])
    for first, common in ((31, 0), (30, 1)):
        write_item_table(folder / "high.parquet", np.arange(first, 61), rows[: 61 - first])
        counts = rf"\(low has 30, high has {61 - first}\); expected 2 or more"
        with pytest.raises(
            ArtifactError, match=rf"low\+high: items in common of tables side by side: {common} {counts}"
        ):
            run(folder, quantizer="rq_kmeans", tables=["low", "high"])
    write_item_table(folder / "run.parquet", np.arange(50, 61), rows[:11], {}, {"run": "0123"})
    with pytest.raises(ArtifactError, match="semantic IDs of run: 1 of 11 items have a training interaction"):
        run(folder, quantizer="rq_kmeans", tables="run")


@pytest.mark.parametrize("quantizer", ["rq_kmeans", "pq", "balanced_rq_kmeans", "rq_vae", "mm_rq_vae"])
@pytest.mark.parametrize("tables", [["alike"], ["alike", "a"], ["b", "alike"]])
def test_a_table_that_is_alike_where_codes_are_fitted_is_refused(
    folder: Path, quantizer: str, tables: list[str]
) -> None:
    """Items without a training interaction differ, but no code is fitted to them."""
    rows = np.random.default_rng(0).standard_normal((ITEMS, 4)).astype(np.float32)
    rows[:WARM] = rows[0]
    write_item_table(folder / "alike.parquet", np.arange(1, ITEMS + 1), rows, {}, {"run": "0123"})
    with pytest.raises(
        ArtifactError, match=r"alike\.parquet: all \d+ items that codes are fitted to have the same vector"
    ):
        run(folder, quantizer=quantizer, tables=tables)


def test_given_codes(folder: Path) -> None:
    (folder / "index.json").write_text(json.dumps({f"i{i}": [i % 5, i] for i in range(1, ITEMS)}))
    output = folder / "given/codes.parquet"
    chosen = TypeAdapter[SemanticIds](SemanticIds).validate_python({"quantizer": "given", "path": "index.json"})
    quantize(chosen, {}, folder / "index.json", folder / "data", output, folder / "state", "code")
    ids = read_codes(output, ITEMS)
    assert ids.codes[7].tolist() == [2, 7]
    assert not ids.present(0)[ITEMS]
    assert read_codebooks(output) == {}
    assert output.with_name("history.jsonl").read_text() == ""
