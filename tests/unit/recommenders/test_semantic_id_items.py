"""Codes as inputs of a backbone: what enters for each item, whole runs, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pattern import ITEMS, make_run
from test_train import make_table

from tessera.artifacts.codes import ABSENT, Part, SemanticIds, read_codebooks, read_codes, write_codes
from tessera.artifacts.models import read_tensors, write_model
from tessera.artifacts.tables import ArtifactError
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.semantic_ids import SemanticIdEncoder
from tessera.recommenders.train import train_run
from tessera.settings.evaluation import Evaluation
from tessera.settings.items.semantic_ids import SemanticIdItems


def two_parts() -> SemanticIds:
    """Six items of two parts; item 3 lacks the first part, item 5 the second."""
    codes = np.array([[ABSENT] * 5, [0, 1, 0, 2, 0], [1, 1, 1, 0, 1], [ABSENT] * 3 + [1, 1], [2, 0, 0, 2, 2],
                      [0, 0, 1, ABSENT, ABSENT], [2, 1, 1, 1, 0]])  # fmt: skip
    return SemanticIds(codes, (Part("first", (3, 2, 2), extra=True), Part("second", (3, 3))))


def codebooks(width: int = 4) -> dict[tuple[int, int], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {(0, 0): 3, (0, 1): 2, (1, 0): 3, (1, 1): 3}
    return {place: torch.randn(size, width, generator=generator) for place, size in sizes.items()}


@pytest.mark.parametrize("combine", ["sum", "concat"])
def test_what_enters_is_the_code_vectors_of_each_item(combine: str) -> None:
    torch.manual_seed(0)
    ids, books = two_parts(), codebooks()
    encoder = SemanticIdEncoder(SemanticIdItems(semantic_ids="x", combine=combine), ids, books, 8)
    entering = {}
    encoder.adapter[0].register_forward_hook(lambda module, given, made: entering.update(rows=given[0]))
    assert encoder().shape == (7, 8)
    extra = encoder.levels[0][2].weight
    for item in range(1, 7):
        parts = []
        for number, levels in ((0, 3), (1, 2)):
            code = ids.of(number)[item]
            if code[0] == ABSENT:
                parts.append(encoder.absent[number])
                continue
            vectors = [books[number, level][code[level]] if (number, level) in books else extra[code[level]]
                       for level in range(levels)]  # fmt: skip
            parts.append(sum(vectors) if combine == "sum" else torch.cat(vectors))
        torch.testing.assert_close(entering["rows"][item], torch.cat(parts))


def test_random_code_vectors_forget_the_codebooks() -> None:
    encoder = SemanticIdEncoder(SemanticIdItems(semantic_ids="x", start="random"), two_parts(), codebooks(), 8)
    assert not torch.equal(encoder.levels[0][0].weight, codebooks()[0, 0])


def test_vectors_of_several_widths_are_laid_side_by_side_or_refused() -> None:
    books = codebooks() | {(1, 1): torch.randn(3, 5)}
    side_by_side = SemanticIdEncoder(SemanticIdItems(semantic_ids="x", combine="concat"), two_parts(), books, 8)
    assert side_by_side().shape == (7, 8)
    with pytest.raises(ValueError, match=r"'second' have vectors of the widths \[4, 5\].*combine: concat"):
        SemanticIdEncoder(SemanticIdItems(semantic_ids="x"), two_parts(), books, 8)


def write_ids(folder: Path) -> Path:
    """Codes in which item i is (i // 6, i % 6), with codebooks that lie on a circle."""
    numbers = np.arange(ITEMS)
    codes = np.vstack([np.full(2, ABSENT), np.stack([numbers // 6, numbers % 6], 1)])
    path = folder / "codes.parquet"
    write_codes(path, SemanticIds(codes, (Part("t", (5, 6)),)), {}, {})
    circle = [torch.tensor([[np.cos(2 * np.pi * k / n), np.sin(2 * np.pi * k / n)] for k in range(n)]) for n in (5, 6)]
    write_model(
        path.with_name("model.safetensors"), {f"codebooks.0.{level}": c.float() for level, c in enumerate(circle)}, {}
    )
    return path


@pytest.mark.parametrize("recommender", ["sasrec", "gru4rec"])
@pytest.mark.parametrize("system", [{"combine": "concat"}, {"combine": "sum", "id_residual": True, "table": "t"}])
def test_backbones_learn_the_pattern_from_codes(recommender: str, system: dict, data: Path, tmp_path: Path) -> None:
    method = {"items": {"semantic_ids": "c", **system}}
    run = make_run(recommender, method, epochs=30, patience=100, learning_rate=0.01)
    tables = {"t": str(make_table(tmp_path))} if "table" in system else {}
    inputs = RunInputs(tables=tables, codes=str(write_ids(tmp_path / "codes")))
    model = tmp_path / "model.safetensors"
    train_run(run, data, inputs, model, tmp_path / "state")
    found = evaluate_run(
        run, Evaluation(), model, data, inputs, None, tmp_path / "e.parquet", tmp_path / "m.json"
    )  # fmt: skip
    assert found["metrics"]["Hit@5"] > 0.6
    assert not any("codes_" in name for name in read_tensors(model))


def test_a_run_without_its_codes_is_refused(data: Path, tmp_path: Path) -> None:
    run = make_run("sasrec", {"items": {"semantic_ids": "c"}})
    with pytest.raises(ValueError, match="the semantic IDs 'c' are read, but no file was given"):
        train_run(run, data, RunInputs(), tmp_path / "m.safetensors", tmp_path)


def test_the_artifact_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "codes.parquet"
    write_codes(path, two_parts(), {"a": 1}, {})
    found = read_codes(path, 6)
    np.testing.assert_array_equal(found.codes, two_parts().codes)
    assert found.parts == two_parts().parts
    assert found.present(0).tolist() == [False, True, True, False, True, True, True]
    assert found.parts[0].meaningful == 2
    write_model(path.with_name("model.safetensors"), {"codebooks.1.0": torch.ones(2, 2), "mean": torch.ones(1)}, {})
    assert list(read_codebooks(path)) == [(1, 0)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([3, 1, 0, 0, 0], r"item 4 has the codes \[3, 1, 0, 0, 0\], expected numbers below \[3, 2, 2, 3, 3\]"),
        ([0, ABSENT, 0, 0, 0], "item 4 has only some of the codes of 'first'"),
    ],
)
def test_codes_that_cannot_be_are_refused(row: list[int], message: str, tmp_path: Path) -> None:
    ids = two_parts()
    ids.codes[4] = row
    write_codes(tmp_path / "codes.parquet", ids, {}, {})
    with pytest.raises(ArtifactError, match=message):
        read_codes(tmp_path / "codes.parquet", 6)


def test_codes_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    write_codes(tmp_path / "codes.parquet", two_parts(), {}, {})
    with pytest.raises(ArtifactError, match=r"6 is not an id in 1\.\.5"):
        read_codes(tmp_path / "codes.parquet", 5)
