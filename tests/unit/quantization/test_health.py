"""The health of semantic IDs: counts by hand, published files, and a table whose codes are known to fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tessera.artifacts.codes import ABSENT, Part, SemanticIds, write_codes
from tessera.artifacts.models import write_model
from tessera.artifacts.tables import ArtifactError, write_item_table, write_table
from tessera.data import principal
from tessera.evaluation import spectrum
from tessera.quantization import health as module
from tessera.quantization.base import PartQuantizer, Quantizer
from tessera.quantization.health import (
    describe_codes,
    describe_health,
    describe_kept,
    describe_meaning,
    describe_reconstruction,
    residual_ratios,
)
from tessera.quantization.vectors import PartVectors, Standard
from tessera.settings.quantizers.given import GivenCodes
from tessera.settings.quantizers.rq_kmeans import RQKMeans

ITEMS, USERS, SIZE, DIM = 60, 40, 4, 6


def write_data(folder: Path) -> Path:
    """Users whose held-out items are all item 60, which nobody has in training; a category for every item."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {"user": [], "item": [], "position": [], "split": []}
    for user in range(1, USERS + 1):
        items = [*(rng.permutation(ITEMS - 1)[:8] + 1).tolist(), ITEMS, ITEMS]
        columns["user"] += [user] * 10
        columns["item"] += items
        columns["position"] += range(10)
        columns["split"] += ["train"] * 8 + ["valid", "test"]
    n = len(columns["user"])
    table = pa.table({**columns, "timestamp": pa.nulls(n, pa.int64()), "rating": pa.nulls(n, pa.float32())})
    write_table(folder / "interactions.parquet", table, "interactions")
    items_table = {
        "item": list(range(1, ITEMS + 1)),
        "raw_id": [f"i{i}" for i in range(1, ITEMS + 1)],
        "title": [f"Item {i}" for i in range(1, ITEMS + 1)],
        "attributes": pa.array(
            [[("kind", str(i % SIZE))] for i in range(1, ITEMS + 1)], pa.map_(pa.string(), pa.string())
        ),
        "image": pa.nulls(ITEMS, pa.string()),
    }
    write_table(folder / "items.parquet", pa.table(items_table), "items")
    users = {"user": list(range(1, USERS + 1)), "raw_id": [f"u{u}" for u in range(1, USERS + 1)]}
    write_table(folder / "users.parquet", pa.table(users), "users")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Codes whose sums are the table but for a little noise; the first code is the item's kind."""
    folder = tmp_path_factory.mktemp("health")
    rng = np.random.default_rng(1)
    books = [rng.normal(size=(SIZE, DIM)).astype(np.float32) * scale for scale in (4, 2, 1)]
    codes = np.full((ITEMS + 1, 3), ABSENT)
    items = np.arange(1, ITEMS + 1)
    codes[1:] = np.stack([items % SIZE, items // SIZE % SIZE, items // SIZE**2 % SIZE], 1)
    sums = sum(book[codes[1:, level]] for level, book in enumerate(books))
    vectors = (sums + rng.normal(size=(ITEMS, DIM)) * 0.01).astype(np.float32)
    write_item_table(folder / "text.parquet", items, vectors)
    scaling = Standard(torch.zeros(DIM), torch.ones(DIM))
    return {
        "folder": folder,
        "data": write_data(folder / "data"),
        "codes": codes,
        "vectors": vectors,
        "part": PartQuantizer(scaling, [torch.from_numpy(book) for book in books]),
        "books": books,
    }


def written(world: dict[str, Any], folder: Path, parts: int = 1) -> Path:
    """codes.parquet and its quantiser for one table, or for the same table twice."""
    names = ["text", "again"][:parts]
    kind = RQKMeans(tables=names)
    ids = SemanticIds(np.concatenate([world["codes"]] * parts, 1), tuple(Part(name, (SIZE,) * 3) for name in names))
    write_codes(folder / "codes.parquet", ids, {}, {})
    quantizer = Quantizer(kind, [world["part"]] * parts)
    write_model(folder / "model.safetensors", quantizer.tensors(), {"settings": kind.model_dump()})
    return folder / "codes.parquet"


def health(codes: Path, world: dict[str, Any], tables: dict[str, Path]) -> dict[str, Any]:
    describe_health(codes, tables, world["data"], codes.with_name("health.json"))
    return dict(json.loads(codes.with_name("health.json").read_text(encoding="utf-8")))


def test_use_is_counted() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [2, 1], [2, 1]])
    found = describe_codes(codes, Part("t", (4, 2)))
    assert (found["items"], found["colliding"], found["shared"], found["largest_group"]) == (6, 3, 5, 3)
    assert found["collision_rate"] == 0.5
    assert found["groups"] == {"1": 1, "2": 1, "3": 1}
    first, second = found["levels"]
    assert (first["used"], first["dead"], first["prefixes"], first["counts"]) == (2, 2, 2, [4, 2])
    shares = np.array([4, 2]) / 6
    assert first["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert (second["perplexity"], second["prefixes"], second["size"]) == (2, 3, 2)
    assert "prefixes" not in describe_codes(codes, Part("t", (4, 2), ordered=False))["levels"][0]


def test_an_extra_level_is_told_apart() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0]])
    found = describe_codes(codes, Part("t", (2, 2), extra=True))
    assert (found["colliding"], found["meaningful_colliding"], found["meaningful_largest_group"]) == (0, 1, 2)
    assert found["meaningful_collision_rate"] == pytest.approx(1 / 3)


def test_no_items_break_nothing() -> None:
    found = describe_codes(np.empty((0, 2), np.int64), Part("t", (2, 2)))
    assert (found["items"], found["collision_rate"], found["largest_group"]) == (0, 0, 0)
    assert found["levels"][0]["dead"] == 2


@pytest.mark.data
def test_published_industrial_codes(data_root: Callable[..., Path]) -> None:
    source = data_root("amazon-industrial-minionerec", "index", "Industrial_and_Scientific.index.json")
    rows = json.loads(source.read_text(encoding="utf-8")).values()
    codes = np.array([[int(code.strip("<>").split("_")[1]) for code in row] for row in rows])
    found = describe_codes(codes, Part("codes", (256,) * 3))
    assert (found["items"], round(found["collision_rate"], 5), found["largest_group"]) == (3686, 0.00434, 3)
    assert [level["used"] for level in found["levels"]] == [48, 256, 256]
    assert [round(level["perplexity"], 1) for level in found["levels"]] == [40.7, 241.7, 225.6]
    assert [level["prefixes"] for level in found["levels"]] == [48, 2295, 3670]


def test_residuals_are_what_each_level_leaves(world: dict[str, Any]) -> None:
    codes = world["codes"][1:]
    ratios = residual_ratios(world["vectors"], world["books"], codes)
    whole = np.linalg.norm(world["vectors"])
    first = np.linalg.norm(world["vectors"] - world["books"][0][codes[:, 0]])
    assert ratios[0] == pytest.approx(first / whole)
    assert ratios[0] > ratios[1] > ratios[2] > 0
    assert ratios[2] < 0.01


def test_a_cloud_without_its_items_is_no_reconstruction() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    same = describe_reconstruction(vectors, vectors)
    assert (same["mse"], same["unexplained"], same["cosine"]) == (0, 0, pytest.approx(1))
    assert abs(same["cosine_by_chance"]) < 0.1
    cloud = describe_reconstruction(vectors, vectors[np.random.default_rng(1).permutation(300)])
    assert abs(cloud["cosine"]) < 0.15
    assert cloud["mse"] == pytest.approx(2, rel=0.15)
    mean = describe_reconstruction(vectors, np.tile(vectors.mean(0), (300, 1)))
    assert mean["unexplained"] == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-5, 1e-12, 1e-30, 1e8])
def test_the_scale_of_a_table_does_not_count(scale: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 6)) + 0.5
    decoded = vectors + rng.normal(size=(200, 6))
    vectors[7] = decoded[9] = 0.0
    plain = describe_reconstruction(vectors.astype(np.float32), decoded.astype(np.float32))
    scaled = describe_reconstruction((vectors * scale).astype(np.float32), (decoded * scale).astype(np.float32))
    assert scaled.pop("mse") == pytest.approx(plain.pop("mse") * scale**2, rel=1e-4)
    assert scaled == pytest.approx(plain, rel=1e-4)
    ratios = residual_ratios(vectors * scale, [decoded * scale], np.arange(200)[:, None])
    assert ratios == pytest.approx(residual_ratios(vectors, [decoded], np.arange(200)[:, None]))
    assert residual_ratios(np.zeros((3, 2)), [np.zeros((1, 2))], np.zeros((3, 1), np.int64)) == [0.0]


def test_meaning_follows_prefixes_or_single_codes(world: dict[str, Any]) -> None:
    kind = np.append(-1, np.arange(1, ITEMS + 1) % SIZE)
    found = describe_meaning(world["codes"], Part("t", (SIZE,) * 3), {"kind": kind})["kind"]
    assert [row["majority"] for row in found] == [1, 1, 1]
    assert found[0]["information"] == pytest.approx(1)
    alone = describe_meaning(world["codes"], Part("t", (SIZE,) * 3, ordered=False), {"kind": kind})["kind"]
    assert alone[0]["information"] == pytest.approx(1)
    assert alone[1]["information"] < 0.2
    assert alone[2]["majority"] < 0.6


def test_the_whole_of_a_table_that_its_codes_fit(world: dict[str, Any], tmp_path: Path) -> None:
    found = health(written(world, tmp_path), world, {"text": world["folder"] / "text.parquet"})
    assert found["catalogue"] == ITEMS
    (part,) = found["parts"]
    assert (part["name"], part["items"], part["colliding"]) == ("text", ITEMS, 0)
    assert part["reconstruction"]["unexplained"] < 1e-4
    assert part["reconstruction"]["cosine"] > 0.999 > 0.5 > part["reconstruction"]["cosine_by_chance"]
    assert len(part["residual_ratios"]) == 3
    for space in ("latent", "reconstruction"):
        assert part["order"][space]["users"] == USERS
        assert part["order"][space]["tau_a"] > 0.95
    assert part["purity"]["kind"][0]["information"] == pytest.approx(1)
    assert part["spectrum"]["table"]["dim"] == DIM
    assert 1 < part["spectrum"]["latent"]["centred"]["information_abundance"] <= DIM
    again = tmp_path / "again"
    assert health(written(world, again), world, {"text": world["folder"] / "text.parquet"}) == found


def test_nothing_is_read_of_held_out_items(world: dict[str, Any], tmp_path: Path) -> None:
    """Item 60 is only ever held out: without its vector all orders are the same."""
    path = tmp_path / "text.parquet"
    write_item_table(
        path, np.arange(1, ITEMS + 1), np.where(np.arange(ITEMS)[:, None] == ITEMS - 1, 99, world["vectors"])
    )
    codes = written(world, tmp_path)
    changed = health(codes, world, {"text": path})["parts"][0]["order"]
    assert changed == health(codes, world, {"text": world["folder"] / "text.parquet"})["parts"][0]["order"]


def test_parts_are_described_one_by_one(world: dict[str, Any], tmp_path: Path) -> None:
    again = tmp_path / "again.parquet"
    write_item_table(again, np.arange(1, ITEMS + 1), world["vectors"] * 3)
    codes = np.concatenate([world["codes"]] * 2, 1)
    codes[7, 3:] = ABSENT
    parts = (Part("text", (SIZE,) * 3), Part("again", (SIZE,) * 3))
    write_codes(tmp_path / "codes.parquet", SemanticIds(codes, parts), {}, {})
    second = PartQuantizer(
        Standard(torch.zeros(DIM), torch.full((DIM,), 3.0)), [b.clone() for b in world["part"].codebooks]
    )
    kind = RQKMeans(tables=["text", "again"])
    quantizer = Quantizer(kind, [world["part"], second])
    write_model(tmp_path / "model.safetensors", quantizer.tensors(), {"settings": kind.model_dump()})
    tables = {"text": world["folder"] / "text.parquet", "again": again}
    first, other = health(tmp_path / "codes.parquet", world, tables)["parts"]
    assert (first["items"], other["items"]) == (ITEMS, ITEMS - 1)
    assert other["reconstruction"]["unexplained"] < 1e-4
    assert other["reconstruction"]["mse"] == pytest.approx(9 * first["reconstruction"]["mse"], rel=0.05)


def test_given_codes_are_described_without_a_quantiser(world: dict[str, Any], tmp_path: Path) -> None:
    ids = SemanticIds(world["codes"], (Part("codes", (SIZE,) * 3),))
    write_codes(tmp_path / "codes.parquet", ids, GivenCodes(path="x").model_dump(), {})
    (part,) = health(tmp_path / "codes.parquet", world, {})["parts"]
    assert part["colliding"] == 0
    assert part["purity"]["kind"][0]["majority"] == 1
    assert not {"reconstruction", "order", "spectrum", "residual_ratios"} & set(part)


def test_files_that_do_not_belong_together_are_named(world: dict[str, Any], tmp_path: Path) -> None:
    codes = written(world, tmp_path)
    table = world["folder"] / "text.parquet"
    with pytest.raises(ArtifactError, match=r"was made of \['text'\], but the tables are \['other'\]"):
        describe_health(codes, {"other": table}, world["data"], tmp_path / "health.json")
    less = tmp_path / "less.parquet"
    write_item_table(less, np.arange(1, ITEMS), world["vectors"][:-1])
    with pytest.raises(ArtifactError, match="item 60 has codes but no row in 'text'"):
        describe_health(codes, {"text": less}, world["data"], tmp_path / "health.json")
    assert not (tmp_path / "health.json").exists()


def test_equal_codes_have_one_reconstruction_and_tie(world: dict[str, Any], tmp_path: Path) -> None:
    """Whatever a decoder makes of equal rows: here of a position in the batch."""

    class Drifting(PartQuantizer):
        def decode(self, latent: torch.Tensor) -> torch.Tensor:
            return super().decode(latent) + 1e-6 * torch.arange(len(latent))[:, None]

    codes = world["codes"].copy()
    codes[1:, 1:] = 0
    drifting = Drifting(world["part"].scaling, world["part"].codebooks)
    vectors = PartVectors("text", np.vstack([np.zeros(DIM), world["vectors"]]), np.ones(ITEMS + 1, bool), (DIM,))
    cases = [(1, np.arange(2, 40)), (7, np.arange(8, 60))]
    order = describe_kept(vectors, drifting, codes, np.arange(1, ITEMS + 1), cases)["order"]
    assert order["latent"]["tie_rate"] == order["reconstruction"]["tie_rate"] > 0.2


def test_a_few_rows_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((50, 8)).astype(np.float32) + 3
    decoded = vectors + 0.3 * rng.standard_normal((50, 8)).astype(np.float32)
    whole = module.describe_reconstruction(vectors, decoded), spectrum.describe_spectrum(vectors)
    assert whole[0]["mse"] == pytest.approx(np.square(vectors - decoded).mean(), rel=1e-5)
    monkeypatch.setattr(module, "_CHUNK", 7)
    monkeypatch.setattr(principal, "_ROWS", 7)
    assert module.describe_reconstruction(vectors, decoded) == pytest.approx(whole[0])
    for kind in ("raw", "centred"):
        found, expected = spectrum.describe_spectrum(vectors)[kind], whole[1][kind]
        assert found["effective_rank"] == pytest.approx(expected["effective_rank"])
        np.testing.assert_allclose(found["singular"], expected["singular"])
