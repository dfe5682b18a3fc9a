"""Tables of several rows an item: equal rows once, standardised as if all were in memory, and never all in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tessera.artifacts.sequences import ItemSequences, read_item_sequences, write_item_sequences
from tessera.artifacts.tables import metadata
from tessera.recommenders.item_encoders import parts
from tessera.recommenders.item_encoders.parts import standardized, standardized_sequences


def written(path: Path, items: int = 90, kinds: int = 40, dim: int = 9, seed: int = 0) -> Path:
    """A table of up to five rows an item, many of them the same; a column and part of another are the same in all."""
    random = np.random.default_rng(seed)
    known = random.normal(3.0, 2.0, (kinds, dim)).astype(np.float32)
    known[:, 0] = 0.25
    known[::3, 1] = -1.5
    counts = random.integers(0, 6, items)
    ids = np.repeat(np.arange(1, items + 1), counts)
    write_item_sequences(path, ids, ["a"] * len(ids), known[random.integers(0, kinds, len(ids))])
    return path


def by_hand(rows: ItemSequences) -> tuple[np.ndarray, np.ndarray]:
    """Distinct standardised rows and their places, with everything in memory."""
    vectors, present = torch.from_numpy(rows.dense()), torch.from_numpy(rows.present)
    values, places = np.unique(standardized(vectors, present)[present].numpy(), axis=0, return_inverse=True)
    found = np.full(present.shape, len(values))
    found[present.numpy()] = places.reshape(-1)
    return values, found


@pytest.mark.parametrize("seed", range(4))
def test_rows_come_out_as_if_all_were_in_memory(tmp_path: Path, seed: int) -> None:
    rows = read_item_sequences(written(tmp_path / "rows.parquet", seed=seed), 90)
    assert isinstance(rows.values, np.memmap)
    assert len(rows.values) <= 40
    made, mean = standardized_sequences(rows)
    np.testing.assert_allclose(mean, 0.0, atol=1e-3)
    assert isinstance(made.values, np.memmap)
    values, places = by_hand(rows)
    np.testing.assert_array_equal(made.values, values)  # to the bit, and in the same order
    np.testing.assert_array_equal(made.value_index, places)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet"]


def test_blocks_give_the_same_up_to_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_item_sequences(written(tmp_path / "rows.parquet"), 90)
    whole, middle = standardized_sequences(rows)
    monkeypatch.setattr(parts, "_BLOCK", 50)
    blocks, mean = standardized_sequences(rows)
    np.testing.assert_allclose(mean, middle, atol=1e-6)
    np.testing.assert_array_equal(blocks.value_index, whole.value_index)
    np.testing.assert_allclose(blocks.values, whole.values, atol=1e-6)


def test_the_scale_of_a_table_does_not_count() -> None:
    present = torch.arange(40) > 3
    vectors = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    plain = standardized(vectors, present)
    assert torch.equal(standardized(vectors * 2**-50, present), plain)
    assert torch.equal(standardized(torch.ones(40, 5), present), torch.zeros(40, 5))


def test_rows_that_meet_by_rounding_are_one(tmp_path: Path) -> None:
    near = np.float32(1e-8)
    vectors = np.array([[1e4, 0.0], [1e4, near], [-1e4, 1.0]], np.float32)
    write_item_sequences(tmp_path / "rows.parquet", np.array([1, 2, 3]), ["a"] * 3, vectors)
    rows = read_item_sequences(tmp_path / "rows.parquet", 3)
    assert len(rows.values) == 3
    made, mean = standardized_sequences(rows)
    np.testing.assert_allclose(mean, 0.0, atol=1e-3)
    values, places = by_hand(rows)
    assert len(values) == 2
    np.testing.assert_array_equal(made.values, values)
    np.testing.assert_array_equal(made.value_index, places)


def test_a_folder_that_takes_no_file_is_no_hindrance(tmp_path: Path) -> None:
    rows = read_item_sequences(written(tmp_path / "rows.parquet"), 90)
    moved = rows._replace(folder=tmp_path / "gone")
    np.testing.assert_array_equal(standardized_sequences(moved)[0].values, standardized_sequences(rows)[0].values)


ITEMS, EACH, DIM = 100_000, 8, 256

READ = f"""
import sys, threading, time
from pathlib import Path
import torch
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders import parts
from tessera.recommenders.item_encoders.dual_view import Attributes
parts._BLOCK = 2**22

def own():  # memory that is no page of a file, which the system takes back when it needs room
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

before, seen, done = own(), [], threading.Event()

def watch():
    while not done.is_set():
        seen.append(own())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
made = Attributes(RunInputs(tables={{"fine": sys.argv[1]}}).read_sequences("fine", {ITEMS}), 16)
assert made.value_index.shape == ({ITEMS} + 1, {EACH}), made.value_index.shape
done.set()
print(max(seen) - before, len(made.values), float(made.values.square().mean()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what is resident")
def test_a_large_table_is_never_all_in_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(500, DIM)).astype(np.float32)
    kinds = {"item": pa.int32(), "position": pa.int32(), "name": pa.string(), "embedding": pa.list_(pa.float32(), DIM)}
    schema = pa.schema(kinds).with_metadata(metadata("item_sequences"))
    path, block = tmp_path / "fine.parquet", 2000
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, schema, **plain) as writer:
        for start in range(0, ITEMS, block):
            rows = shared[random.integers(0, 500, block * EACH)]
            rows[::EACH] = random.normal(size=(block, DIM))  # a title of its own
            columns = [
                pa.array(np.repeat(np.arange(start + 1, start + block + 1), EACH), pa.int32()),
                pa.array(np.tile(np.arange(EACH), block), pa.int32()),
                pa.array(["a"] * (block * EACH)),
                pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIM),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    dense = (ITEMS + 1) * EACH * DIM * 4
    assert path.stat().st_size > 0.9 * dense
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    resident, values, square = done.stdout.split()
    assert int(values) == ITEMS + 500
    assert 0.5 < float(square) < 2.0
    assert 0 < int(resident) < 0.35 * dense
