"""Diagnostics of item tables against closed forms and plain loops."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from tessera.artifacts.files import file_digest
from tessera.artifacts.tables import ArtifactError, write_item_table, write_table
from tessera.data.bazaar.generate import generate
from tessera.data.bazaar.world import build_world
from tessera.data.directions import unit_rows
from tessera.evaluation import representations
from tessera.evaluation.representations import (
    agreement,
    by_popularity,
    describe_table,
    diagnose,
    effective_rank,
    neighbours_and_uniformity,
    pair_cosines,
    sample_pairs,
    strongest_pairs,
)
from tessera.settings.sources.bazaar import BazaarSource


def random_rows(n: int, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32) + 0.3


def symmetric(n: int, seed: int = 0) -> sparse.csr_matrix:
    counts = np.triu(np.random.default_rng(seed).poisson(0.4, (n + 1, n + 1)), 1)
    counts[0] = 0
    return sparse.csr_matrix(counts + counts.T)


def test_effective_rank_counts_the_directions_in_use() -> None:
    # corners of a cross: three directions, equally strong, and a shift that all share
    cross = np.concatenate([np.eye(3), -np.eye(3)]) + 7.0
    assert effective_rank(np.pad(cross, ((0, 0), (0, 4)))) == pytest.approx(3.0)
    line = np.arange(10)[:, None] * np.ones((1, 5))
    assert effective_rank(line) == pytest.approx(1.0)
    assert effective_rank(np.ones((4, 3))) == 0.0
    rows = random_rows(40)
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    shares = singular / singular.sum()
    assert effective_rank(rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    assert effective_rank(rows.T) <= 6  # more dimensions than rows: the other Gram matrix


def test_uniformity_and_neighbours_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representations, "_BLOCK", 100)  # several blocks
    unit = unit_rows(random_rows(33))
    rows, cosines, uniformity = neighbours_and_uniformity(unit, np.arange(33), 4)
    distances = [np.exp(-2 * float(((unit[a] - unit[b]) ** 2).sum())) for a, b in combinations(range(33), 2)]
    assert uniformity == pytest.approx(np.log(np.mean(distances)), rel=1e-5)
    similar = unit @ unit.T
    for item in range(33):
        others = [other for other in np.argsort(-similar[item]) if other != item][:4]
        assert rows[item].tolist() == others
        assert cosines[item] == pytest.approx(similar[item, others], abs=1e-6)


def test_opposite_points_are_as_even_as_two_points_can_be() -> None:
    unit = np.array([[1, 0], [-1, 0]], np.float32)
    assert neighbours_and_uniformity(unit, np.arange(2), 8)[2] == pytest.approx(-8.0)
    same = np.array([[1, 0], [1, 0]], np.float32)
    assert neighbours_and_uniformity(same, np.arange(2), 8)[2] == pytest.approx(0.0, abs=1e-6)


def test_strongest_pairs_stay_within_the_table() -> None:
    counts = sparse.csr_matrix(
        np.array([[0, 0, 0, 0, 0], [0, 0, 2, 9, 2], [0, 2, 0, 0, 5], [0, 9, 0, 0, 0], [0, 2, 5, 0, 0]])
    )
    assert strongest_pairs(counts, np.array([1, 2, 3, 4])).tolist() == [[1, 3], [2, 4], [3, 1], [4, 2]]
    # without item 3: 1 meets 2 and 4 equally often and takes the lower id
    assert strongest_pairs(counts, np.array([1, 2, 4])).tolist() == [[1, 2], [2, 4], [4, 2]]
    assert strongest_pairs(counts, np.array([3, 4])).tolist() == []


def test_kendall_follows_the_order_of_pairs() -> None:
    # cosines to item 1 fall with the id; so do the co-occurrences
    angles = np.array([0, 0.0, 0.3, 0.6, 0.9, 1.2])
    unit = unit_rows(np.stack([np.cos(angles), np.sin(angles)], 1))
    counts = np.zeros((6, 6), np.int64)
    counts[1, 2:] = counts[2:, 1] = [9, 5, 3, 1]
    pairs = np.array([[1, 2], [1, 3], [1, 4], [5, 1]])
    assert agreement(unit, sparse.csr_matrix(counts), pairs) == pytest.approx(1.0)
    counts[1, 2:] = counts[2:, 1] = [1, 3, 5, 9]
    assert agreement(unit, sparse.csr_matrix(counts), pairs) == pytest.approx(-1.0)
    counts[1, 2:] = counts[2:, 1] = 4
    assert agreement(unit, sparse.csr_matrix(counts), pairs) is None
    assert agreement(unit, sparse.csr_matrix(counts), pairs[:0]) is None


def test_the_scale_of_a_table_does_not_count() -> None:
    rows = np.concatenate([np.zeros((1, 6)), random_rows(33)]).astype(np.float32)
    present, popularity = np.arange(34) > 0, np.arange(34, 0, -1)
    plain = describe_table(rows, present, symmetric(33), popularity)
    power = 2.0**-60  # no digit changes
    assert describe_table(rows * np.float32(power), present, symmetric(33), popularity) == plain


def test_sampled_pairs_join_different_items_and_half_of_them_meet() -> None:
    counts = symmetric(30)
    pairs = sample_pairs(counts, 200)
    assert (pairs == sample_pairs(counts, 200)).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert pairs.min() == 1
    assert pairs.max() == 30
    met = min(100, counts.nnz // 2)
    assert (np.asarray(counts[pairs[:met, 0], pairs[:met, 1]]) > 0).all()
    assert len(np.unique(pairs[:met], axis=0)) == met
    assert len(sample_pairs(sparse.csr_matrix((31, 31), dtype=np.int64), 200)) == 100


def test_popularity_bins_by_plain_loops() -> None:
    n = 25
    unit = unit_rows(np.concatenate([np.zeros((1, 6)), random_rows(n)]))
    present = np.ones(n + 1, bool)
    present[[0, 4, 9]] = False
    popularity = np.concatenate([[0], np.arange(n, 0, -1)])
    found = by_popularity(unit, present, popularity)
    assert sum(row["items"] for row in found) == n - 2
    mean = unit[present].mean(0)
    mean /= np.linalg.norm(mean)
    start = 1
    for row in found:
        members = []
        while len(members) < row["items"]:
            members += [start] if present[start] else []
            start += 1
        assert row["cosine_to_mean"] == pytest.approx(np.mean([unit[m] @ mean for m in members]), abs=1e-5)
        cosines = [float(unit[a] @ unit[b]) for a, b in combinations(members, 2)]
        assert row["mean_cosine"] == (pytest.approx(np.mean(cosines), abs=1e-5) if cosines else None)


def write_data(folder, histories, items):
    columns = {"user": [], "item": [], "position": [], "split": []}
    for user, history in enumerate(histories, 1):
        columns["user"] += [user] * len(history)
        columns["item"] += history
        columns["position"] += range(len(history))
        columns["split"] += ["train"] * (len(history) - 2) + ["valid", "test"]
    n = len(columns["user"])
    table = pa.table({**columns, "timestamp": pa.nulls(n, pa.int64()), "rating": pa.nulls(n, pa.float32())})
    write_table(folder / "interactions.parquet", table, "interactions")
    for kind, key, count in (("items", "item", items), ("users", "user", len(histories))):
        ids = list(range(1, count + 1))
        more = {"title": [""] * count, "image": pa.nulls(count, pa.string())} if kind == "items" else {}
        more |= {"attributes": pa.array([[]] * count, pa.map_(pa.string(), pa.string()))} if more else {}
        write_table(folder / f"{kind}.parquet", pa.table({key: ids, "raw_id": list(map(str, ids)), **more}), kind)
    return folder


def test_a_table_is_diagnosed_from_training_histories_alone(tmp_path) -> None:
    rng = np.random.default_rng(4)
    histories = [rng.integers(1, 21, 9).tolist() for _ in range(30)]
    vectors = random_rows(20)
    ids = np.array([i for i in range(1, 21) if i != 7])
    write_item_table(tmp_path / "t.parquet", ids, vectors[ids - 1] * 40)
    diagnose(tmp_path / "t.parquet", write_data(tmp_path / "a", histories, 20), tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["items"], found["catalogue"], found["dim"]) == (19, 20, 6)
    assert found["neighbours"].keys() == {str(i) for i in ids}
    assert all(len(near) == 8 and 7 not in [item for item, _ in near] for near in found["neighbours"].values())
    met = np.zeros((21, 21), int)
    for history in histories:
        for a, b in combinations(history[:-2], 2):
            if a != b:
                met[a, b] += 1
                met[b, a] += 1
    met[7] = met[:, 7] = 0
    unit = unit_rows(np.concatenate([np.zeros((1, 6)), vectors]))
    best = [((unit[a] - unit[met[a].argmax()]) ** 2).sum() for a in ids if met[a].any()]
    assert found["alignment"] == pytest.approx(np.mean(best), rel=1e-4)
    # other held-out items: nothing changes
    swapped = [[*history[:-2], 1 + history[-2] % 20, 1 + history[-1] % 20] for history in histories]
    diagnose(tmp_path / "t.parquet", write_data(tmp_path / "b", swapped, 20), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_probes_read_the_attributes_of_the_catalogue_and_of_the_world(tmp_path) -> None:
    world = build_world(BazaarSource(users=30, items=400, seed=3))
    generate(world.settings, tmp_path / "raw")
    latents, data = tmp_path / "raw/latents.parquet", tmp_path / "data"
    write_data(data, [[1, 2, 3, 4]], 400)
    raw = pq.read_table(tmp_path / "raw/items.parquet")
    items = {name: raw.column(name) for name in ("raw_id", "title", "image")}
    items |= {"item": pa.array(range(1, 401), pa.int32()), "attributes": raw.column("attributes")}
    write_table(data / "items.parquet", pa.table(items), "items")
    rows = world.one_hot("text")[:, :50]  # category, brand, material, style; nothing of pictures
    write_item_table(tmp_path / "t.parquet", np.arange(1, 401), rows)
    diagnose(tmp_path / "t.parquet", data, tmp_path / "t.json", latents)
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["probes"].keys() == {"category", "brand"}
    assert found["hidden_probes"].keys() == {"material", "style", "price", "colour", "shape", "pattern"}
    assert found["unprobed"] == ["description"]  # the price in money is no class, the hidden range is
    assert min(found["probes"][name]["accuracy"] for name in ("category", "brand")) > 0.95
    assert found["hidden_probes"]["material"]["accuracy"] > 0.9  # some items have no description
    for name in ("shape", "pattern"):
        told = found["hidden_probes"][name]
        assert told["accuracy"] < told["majority"] + 0.1
    assert found["bound"] is False
    write_item_table(tmp_path / "t.parquet", np.arange(1, 401), rows, {}, {"source": file_digest(latents)})
    diagnose(tmp_path / "t.parquet", data, tmp_path / "b.json", latents)
    assert json.loads((tmp_path / "b.json").read_text()) == {**found, "bound": True}
    diagnose(tmp_path / "t.parquet", data, tmp_path / "c.json")
    without = json.loads((tmp_path / "c.json").read_text())
    assert without["probes"] == found["probes"]
    assert without["unprobed"] == ["price", "description"]
    assert "hidden_probes" not in without


def test_large_catalogues_are_sampled_and_tiny_ones_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representations, "MOST_ANCHORS", 10)
    rows = np.concatenate([np.zeros((1, 6), np.float32), random_rows(60)])
    present = np.arange(61) > 0
    found = describe_table(rows, present, symmetric(60), np.arange(61))
    assert len(found["neighbours"]) == 10
    unit = unit_rows(rows[1:])
    exact = neighbours_and_uniformity(unit, np.arange(60), 8)
    assert found["uniformity"] == pytest.approx(exact[2], abs=0.3)
    for item, near in found["neighbours"].items():
        assert [i for i, _ in near] == (exact[0][int(item) - 1] + 1).tolist()
    alone = describe_table(rows, np.arange(61) == 5, symmetric(60), np.arange(61))
    assert alone == {"items": 1, "catalogue": 60, "dim": 6, "neighbours": {}}


def test_zero_rows_are_nobodys_neighbours_by_accident() -> None:
    unit = unit_rows(np.array([[0, 0], [2, 0], [3, 0.1]], np.float32))
    assert np.isfinite(unit).all()
    assert pair_cosines(unit, np.array([[0, 1], [1, 2]])) == pytest.approx([0, 0.9994], abs=1e-3)


def test_a_table_of_another_catalogue_is_refused(tmp_path) -> None:
    write_item_table(tmp_path / "t.parquet", np.arange(1, 31), random_rows(30))
    with pytest.raises(ArtifactError, match=r"30 is not an id|21 is not an id"):
        diagnose(tmp_path / "t.parquet", write_data(tmp_path / "a", [[1, 2, 3, 4]], 20), tmp_path / "a.json")
