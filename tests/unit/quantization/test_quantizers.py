"""Every quantiser alike: codes from vectors and back, files, distances; and what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from tessera.artifacts.codes import read_codebooks
from tessera.artifacts.models import write_model
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.quantization import base
from tessera.quantization.base import Fitted, Quantizer, load_quantizer
from tessera.quantization.vectors import PartVectors, read_parts, standard
from tessera.settings.kinds import implementation
from tessera.settings.quantizers.base import SemanticIds
from tessera.settings.quantizers.given import GivenCodes

torch.set_num_threads(1)

N, DIM = 240, 10
TRAINING = {"steps": 60, "batch": 100, "learning_rate": 0.02, "checkpoint_seconds": 0.0, "device": "cpu"}
SMALL: dict[str, Any] = {"hidden": [16], "dim": 6, "training": TRAINING}
KINDS: dict[str, dict[str, Any]] = {
    "rq_kmeans": {},
    "rq_kmeans unit": {"normalize_residuals": True},
    "balanced_rq_kmeans": {},
    "pq": {},
    "rq_vae": SMALL,
    "rq_vae ema": {**SMALL, "codebook": "ema"},
    "rq_vae rotation": {**SMALL, "estimator": "rotation"},
    "rq_vae gumbel": {**SMALL, "estimator": "gumbel"},
    "mm_rq_vae": {**SMALL, "tables": ["a", "b"]},
    "mm_rq_vae mmd": {**SMALL, "tables": ["a", "b"], "align": "mmd", "start": "random"},
}


def settings_of(kind: str, **more: Any) -> Any:
    chosen = {"tables": ["a"], "levels": 3, "codes": 12, **KINDS[kind], **more}
    return TypeAdapter[SemanticIds](SemanticIds).validate_python({"quantizer": kind.split()[0], **chosen})


def part(name: str, seed: int, dim: int = DIM, scale: float = 1.0) -> PartVectors:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((8, dim)) * 3
    vectors = middles[rng.integers(0, 8, N)] + rng.standard_normal((N, dim))
    return PartVectors(name, (scale * vectors + 5).astype(np.float32), np.ones(N, bool), (dim,))


def fitted(kind: str, state: Path, **more: Any) -> tuple[Quantizer, list[PartVectors], Fitted]:
    settings = settings_of(kind, **more)
    data = [part(name, number, DIM + 3 * number) for number, name in enumerate(settings.tables)]
    found = implementation(settings).fit(settings, data, state)
    return Quantizer(settings, found.parts), data, found


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantiser_and_its_file(kind: str, tmp_path: Path) -> None:
    quantizer, data, found = fitted(kind, tmp_path)
    vectors = [own.vectors for own in data]
    codes, made = quantizer.assign(vectors), None
    made, latent = quantizer.decode(codes), quantizer.latent(codes)
    assert found.history
    for own, chosen, x, y, z in zip(quantizer.parts, codes, vectors, made, latent, strict=True):
        assert own.sizes == (12, 12, 12)
        assert chosen.shape == (N, 3)
        assert chosen.dtype == np.int64
        assert ((chosen >= 0) & (chosen < 12)).all()
        assert y.shape == x.shape
        assert y.dtype == np.float32
        books = own.codebooks
        parts = [books[level][chosen[:, level]].numpy() for level in range(3)]
        expected = np.concatenate(parts, 1) if kind == "pq" else sum(parts)
        assert np.allclose(z, expected, atol=1e-4)
        if not kind.endswith("mmd"):
            # codes tell something of the vector, in the table's own space
            assert np.square(y - x).sum() < 0.7 * np.square(x - x.mean(0)).sum()
    for number, (own, x) in enumerate(zip(codes, vectors, strict=True)):
        near = quantizer.distances(number, x, own)
        assert near.shape == (N, 12)
        assert np.array_equal(near, quantizer.distances(number, x))
        if kind != "balanced_rq_kmeans":
            assert np.array_equal(near.argmin(1), own[:, -1])
    # an extra level that tells colliding items apart changes no vector
    longer = [np.column_stack([own, np.arange(N)]) for own in codes]
    assert all(np.array_equal(a, b) for a, b in zip(quantizer.decode(longer), made, strict=True))

    path = tmp_path / "model.safetensors"
    write_model(path, quantizer.tensors(), {"settings": quantizer.settings.model_dump(mode="json")})
    again = load_quantizer(path)
    assert all(np.array_equal(a, b) for a, b in zip(again.assign(vectors), codes, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(again.decode(codes), made, strict=True))
    books = read_codebooks(tmp_path / "codes.parquet")
    assert sorted(books) == [(number, level) for number in range(len(data)) for level in range(3)]


def test_residual_codes_are_nearest_level_by_level(tmp_path: Path) -> None:
    quantizer, (data,), _ = fitted("rq_kmeans", tmp_path)
    (own,) = quantizer.parts
    left = (data.vectors.astype(np.float64) - own.scaling.mean.numpy()) / own.scaling.scale.numpy()
    for level, codes in enumerate(quantizer.assign([data.vectors])[0].T):
        book = own.codebooks[level].double().numpy()
        assert np.array_equal(np.square(left[:, None] - book[None]).sum(-1).argmin(1), codes)
        left = left - book[codes]


@pytest.mark.parametrize("kind", ["rq_kmeans", "rq_kmeans unit", "balanced_rq_kmeans", "pq", "rq_vae", "mm_rq_vae"])
def test_codes_of_rows_in_chunks_are_those_of_all_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer, data, _ = fitted(kind, tmp_path)
    with torch.no_grad():
        whole = [p.choose(p.encode(torch.from_numpy(d.vectors))) for p, d in zip(quantizer.parts, data, strict=True)]
    monkeypatch.setattr(base, "CHUNK", 50)
    for codes, wanted in zip(quantizer.assign([d.vectors for d in data]), whole, strict=True):
        assert np.array_equal(codes, wanted.numpy())
    assert quantizer.assign([d.vectors[:0] for d in data])[0].shape == (0, 3)


def test_product_codes_are_nearest_in_their_piece(tmp_path: Path) -> None:
    quantizer, (data,), _ = fitted("pq", tmp_path)
    (own,) = quantizer.parts
    assert not own.ordered
    assert [book.shape[1] for book in own.codebooks] == [4, 3, 3]
    rows = (data.vectors - own.scaling.mean.numpy()) / own.scaling.scale.numpy()
    starts = [0, 4, 7, 10]
    codes = quantizer.assign([data.vectors])[0]
    for level, book in enumerate(own.codebooks):
        piece = rows[:, starts[level] : starts[level + 1]]
        assert np.array_equal(np.square(piece[:, None] - book.numpy()[None]).sum(-1).argmin(1), codes[:, level])
    with pytest.raises(ValueError, match="10 columns cannot be cut into 11 pieces"):
        fitted("pq", tmp_path, levels=11)


def test_unit_residuals_forget_lengths(tmp_path: Path) -> None:
    quantizer, (data,), _ = fitted("rq_kmeans unit", tmp_path)
    (own,) = quantizer.parts
    latent = own.encode(torch.from_numpy(data.vectors))
    assert torch.equal(own.choose(latent), own.choose(3 * latent))


def test_residuals_that_are_zero_have_no_length_to_forget(tmp_path: Path) -> None:
    vectors = np.repeat(np.random.default_rng(0).standard_normal((6, DIM)), 10, 0).astype(np.float32)
    settings = settings_of("rq_kmeans unit", conflicts="extra_level")
    data = PartVectors("a", vectors, np.ones(60, bool), (DIM,))
    quantizer = Quantizer(settings, implementation(settings).fit(settings, [data], tmp_path).parts)
    (codes,) = quantizer.assign([vectors])
    assert len(np.unique(codes, axis=0)) == 6
    assert np.isfinite(quantizer.decode([codes])[0]).all()


def test_more_levels_and_the_encoder_leave_less(tmp_path: Path) -> None:
    def left(kind: str, **more: Any) -> float:
        quantizer, (data,), _ = fitted(kind, tmp_path / str(more), **more)
        made = quantizer.decode(quantizer.assign([data.vectors]))[0]
        return float(np.square(made - data.vectors).sum() / np.square(data.vectors - data.vectors.mean(0)).sum())

    assert left("rq_kmeans", levels=1) > left("rq_kmeans", levels=2) > left("rq_kmeans", levels=3)
    longer = {**TRAINING, "steps": 300, "batch": 240, "learning_rate": 0.005}
    assert left("rq_vae", training=longer) < 0.9 * left("rq_vae")


@pytest.mark.parametrize("kind", ["rq_vae", "rq_vae ema", "rq_vae gumbel", "mm_rq_vae"])
def test_a_stopped_training_ends_with_the_same_numbers(kind: str, tmp_path: Path) -> None:
    # a constant rate: the first 20 of 60 steps are those of a training of 20
    revive = {"revive_after": 4}
    whole, _, _ = fitted(kind, tmp_path / "whole", **revive)
    fitted(kind, tmp_path / "parts", training={**TRAINING, "steps": 20}, **revive)
    assert (tmp_path / "parts/checkpoint.safetensors").is_file()
    resumed, _, found = fitted(kind, tmp_path / "parts", **revive)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
    assert [row["step"] for row in found.history] == list(range(1, 61))
    found.clear()
    assert not (tmp_path / "parts/checkpoint.safetensors").exists()


def test_an_item_that_lacks_a_part_changes_nothing_of_it(tmp_path: Path) -> None:
    settings = settings_of("mm_rq_vae", training={**TRAINING, "batch": 500})
    a, b = part("a", 0), part("b", 1)
    fit = implementation(settings).fit
    some = np.arange(N) % 3 > 0
    tensors = []
    for filling in (0.0, 77.0):
        vectors = np.where(some[:, None], b.vectors, np.float32(filling))
        found = fit(settings, [a, PartVectors("b", vectors, some, (DIM,))], tmp_path / str(filling))
        tensors.append(Quantizer(settings, found.parts).tensors())
    for name, tensor in tensors[0].items():
        assert torch.equal(tensor, tensors[1][name]), name


def test_tables_side_by_side_weigh_the_same() -> None:
    a, b = part("a", 0, 4), part("b", 1, 20, scale=300.0)
    joined = torch.from_numpy(np.concatenate([a.vectors, b.vectors], 1))
    scaling = standard(joined, (4, 20))
    rows = scaling.apply(joined)
    assert float(rows[:, :4].square().sum()) == pytest.approx(float(rows[:, 4:].square().sum()), rel=1e-4)
    assert float(rows.square().mean()) == pytest.approx(1.0, rel=1e-4)
    assert torch.allclose(rows.mean(0), torch.zeros(24), atol=1e-4)
    assert torch.allclose(scaling.undo(rows), joined, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-18, 1e-25, 1e8])
def test_the_scale_of_a_table_does_not_count(scale: float) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    vectors = torch.from_numpy((rows * scale).astype(np.float32))
    assert float(standard(vectors, (4,)).apply(vectors).square().mean()) == pytest.approx(1.0, rel=1e-4)
    same = torch.full((9, 4), 0.1 * scale)
    assert torch.isfinite(standard(same, (4,)).apply(same)).all()


def test_tables_are_read_side_by_side_or_apart(tmp_path: Path) -> None:
    paths = {"a": tmp_path / "a.parquet", "b": tmp_path / "b.parquet"}
    a, b = np.eye(3, dtype=np.float32), np.arange(8, dtype=np.float32).reshape(4, 2)
    write_item_table(paths["a"], np.array([1, 2, 4]), a)
    write_item_table(paths["b"], np.array([4, 3, 2, 5]), b)
    (joined,) = read_parts(paths, 5, together=True)
    assert joined.name == "a+b"
    assert joined.widths == (3, 2)
    assert np.flatnonzero(joined.present).tolist() == [2, 4]
    assert joined.vectors[4].tolist() == [0, 0, 1, 0, 1]
    assert not joined.vectors[[0, 1, 3, 5]].any()
    apart = read_parts(paths, 5, together=False)
    assert [np.flatnonzero(own.present).tolist() for own in apart] == [[1, 2, 4], [2, 3, 4, 5]]
    write_item_table(paths["b"], np.array([1, 2]), np.ones((2, 3), np.float32))
    with pytest.raises(ArtifactError, match=r"b\.parquet: every item has the same vector"):
        read_parts(paths, 5, together=True)


def test_the_log_tells_the_rows_of_each_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_of("mm_rq_vae", training={**TRAINING, "steps": 1})
    whole, few = part("a", 0), part("b", 1)
    few.present[50:] = False
    with caplog.at_level("INFO"):
        implementation(settings).fit(settings, [whole, few], tmp_path)
    started = [record.getMessage() for record in caplog.records if "k-means of" in record.getMessage()]
    assert started == [f"codebooks start from k-means of {count} latent vectors" for count in (N, 50)]


def test_given_codes_have_no_quantiser(tmp_path: Path) -> None:
    settings = GivenCodes(path="x.json")
    write_model(tmp_path / "model.safetensors", {}, {"settings": settings.model_dump(mode="json")})
    with pytest.raises(ArtifactError, match="given codes have no quantiser"):
        load_quantizer(tmp_path / "model.safetensors")
    assert read_codebooks(tmp_path / "codes.parquet") == {}
