"""Pairs of items that stand together: what the loss is, who is no negative, what is learned, and from what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_train_contrastive import embed, history, made, table, train
from tiny_language import tiny_model, write_data

from tessera.artifacts.tables import read_table, write_table
from tessera.embedding.pairs import PairsRecipe
from tessera.embedding.step_batches import Pairs
from tessera.training.machine import Machine

torch.set_num_threads(1)
STILL: dict[str, Any] = {"lora": {"dropout": 0.0}}


def begun(data: Path, **settings: Any) -> PairsRecipe:
    recipe = made(table("pairs", **STILL, **settings), data / "items.parquet", None, data)
    assert isinstance(recipe, PairsRecipe)
    recipe.begin(Machine(recipe.settings.training))
    return recipe


def paired(*pairs: tuple[int, int]) -> Pairs:
    queries, targets = np.array(pairs, np.int64).T
    return Pairs("together", queries, targets, np.zeros((len(pairs), 0), np.int64))


def rewritten(data: Path, change: Any) -> Path:
    """The dataset with other interactions: `change` takes and gives lists by column."""
    path = data / "interactions.parquet"
    rows = read_table(path, "interactions")
    columns = change(rows.to_pydict())
    write_table(path, pa.table(columns, schema=rows.schema), "interactions")
    return data


def test_the_loss_is_that_of_every_pair_by_hand(tmp_path: Path) -> None:
    recipe = begun(write_data(tmp_path), temperature=0.2)
    recipe.training.eval()
    pairs = paired((1, 2), (5, 6), (9, 2), (11, 12))
    told = recipe.training.losses(pairs, 0)
    read = lambda ids: recipe.training.encode(recipe.training.tokens(recipe.training.attributes[i] for i in ids))  # noqa: E731
    with torch.no_grad():
        queries, targets = (torch.nn.functional.normalize(read(side.tolist()), dim=-1) for side in pairs[1:3])
    scores = (queries @ targets.T / 0.2).double().numpy()
    left_out = recipe.training.no_negatives(pairs)  # type: ignore[attr-defined]
    terms = []
    for matrix, without in ((scores, left_out), (scores.T, left_out.T)):
        for row in range(4):
            kept = [column for column in range(4) if column == row or not without[row, column]]
            terms.append(np.log(np.exp(matrix[row, kept]).sum()) - matrix[row, row])
    assert float(told["loss"].value.detach()) == pytest.approx(np.mean(terms), rel=1e-4)
    assert left_out[0, 2]  # both pairs have item 2
    assert left_out[2, 0]


def test_pairs_that_nothing_is_told_from_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def together(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        users, items = zip(*((user, item) for user in (1, 2) for item in range(5, 13)), strict=True)
        kept = {"user": users, "item": items, "position": [*range(8)] * 2, "timestamp": [*range(8)] * 2}
        return {name: [*kept.get(name, ["train"] * 16 if name == "split" else [None] * 16)] for name in columns}

    data = rewritten(write_data(tmp_path / "data"), together)
    for window, said in ((8, True), (1, False)):
        settings = table("pairs", {"steps": 2, "batch": 6}, **STILL, window=window)
        caplog.clear()
        output = train(tmp_path / str(window), settings, data=data)
        row = history(output)[-1]
        assert (row["negatives"] == 0) == said
        assert (row["accuracy"] == 1.0) >= said, "where there is no other, the own target is found"
        assert ("nothing is told apart; take a smaller window" in caplog.text) == said


def test_no_negatives(tmp_path: Path) -> None:
    def only(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        items = [1, 2, 3, 5, 6, 7, 8, 9, 10]
        kept = {"user": [1] * 3 + [2] * 6, "item": items, "position": [0, 1, 2, 0, 1, 2, 3, 4, 5]}
        kept |= {"timestamp": kept["position"], "split": ["train"] * 9, "rating": [None] * 9}
        return {name: kept[name] for name in columns}

    recipe = begun(rewritten(write_data(tmp_path), only), window=2)
    counts = recipe.counts
    assert counts[1, 3] == counts[3, 1] == counts[5, 7] == 1
    assert counts[5, 8] == 0  # three places apart
    training: Any = recipe.training
    # 1 stands near 3, which is the target of the second; 6 stands near none of the first two
    assert training.no_negatives(paired((1, 2), (1, 3), (6, 7))).tolist() == [
        [True, True, False], [True, True, False], [False, False, True],
    ]  # fmt: skip
    # 5 and 8 are strangers, and 6 stands near both: query 5 must not be told from target 6, nor query 8
    assert training.no_negatives(paired((5, 7), (8, 6)))[0, 1]
    training.content[9] = training.content[1]
    # 9 says what 1 says: it is no negative of a pair that 1 is in
    assert training.no_negatives(paired((2, 1), (10, 9)))[0, 1]
    assert not training.no_negatives(paired((2, 3), (10, 9)))[0, 1]


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_items_that_stand_together_come_together(kind: Any, tmp_path: Path) -> None:
    """Five items are always bought together, and others among themselves: afterwards their vectors say so."""

    def two_camps(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        camps = ([1, 2, 3, 5, 6, 7], [8, 9, 10, 11, 12, 13])
        rows = [(u, i, p) for u in range(1, 13) for p, i in enumerate(np.roll(camps[u % 2], u).tolist())]
        user, item, place = map(list, zip(*rows, strict=True))
        n = len(rows)
        given = {"user": user, "item": item, "position": place, "timestamp": place, "split": ["train"] * n}
        return {name: given.get(name, [None] * n) for name in columns}

    data = rewritten(write_data(tmp_path / "data"), two_camps)
    settings = table("pairs", {"steps": 30, "batch": 12, "learning_rate": 1e-2}, **STILL)

    def apart(vectors: np.ndarray, items: np.ndarray) -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        of = {item: unit[place] for place, item in enumerate(items.tolist())}
        first, second = [1, 2, 3, 5, 6, 7], [8, 9, 10, 11, 12, 13]
        same = np.mean([of[a] @ of[b] for camp in (first, second) for a in camp for b in camp if a < b])
        return float(same - np.mean([of[a] @ of[b] for a in first for b in second]))

    settings = settings.model_copy(update={"whiten": 0.0})
    output = train(tmp_path, settings, tiny_model(kind), data)
    items, vectors = embed(settings, data / "items.parquet", output, tiny_model(kind))
    none = train(tmp_path / "none", table("pairs", {"steps": 0}, **STILL), tiny_model(kind), data)
    _, before = embed(settings, data / "items.parquet", none, tiny_model(kind))
    assert apart(vectors, items) > apart(before, items) + 0.3
    rows = history(output)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_held_out_interactions_are_not_seen(tmp_path: Path) -> None:
    plain = train(tmp_path / "a", table("pairs")).read_bytes()

    def moved(split: str) -> Any:
        def change(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
            items = [i % 19 + 1 if s == split else i for i, s in zip(columns["item"], columns["split"], strict=True)]
            return {**columns, "item": items}

        return change

    for split, same in (("test", True), ("train", False)):
        data = rewritten(write_data(tmp_path / split), moved(split))
        assert (train(tmp_path / f"b{split}", table("pairs"), data=data).read_bytes() == plain) == same


def test_no_pair_is_refused(tmp_path: Path) -> None:
    def alone(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        first = [place == 0 for place in columns["position"]]
        return {name: [value for value, kept in zip(values, first, strict=True) if kept]
                for name, values in columns.items()}  # fmt: skip

    data = rewritten(write_data(tmp_path / "data"), alone)
    with pytest.raises(ValueError, match=r"no two items with a text stand at most 5 places apart"):
        train(tmp_path, table("pairs"), data=data)
