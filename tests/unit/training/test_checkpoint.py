"""Checkpoints that are damaged or of something else are refused by name; what kills leave over is cleaned away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tessera.artifacts.tables import ArtifactError
from tessera.training.checkpoint import clear, read_checkpoint, restore_moments, save_checkpoint, tidy

OWN = {"history": [], "step": 0, "best_value": -1.0}


def network(width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Linear(width, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, width)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "state" / "checkpoint.safetensors"
    model, optimizer = network()
    save_checkpoint(
        found, model, [optimizer], model.state_dict(), {"history": [{"a": 1}], "step": 3, "best_value": None}
    )
    return found


def test_what_is_saved_comes_back(path: Path) -> None:
    model, optimizer = network()
    found = read_checkpoint(path, model, OWN)
    assert found is not None
    assert found.progress == {"history": [{"a": 1}], "step": 3, "best_value": None}
    for weights in (found.model, found.best):
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in weights.items())
    other = torch.optim.AdamW(model.parameters(), fused=True)
    restore_moments(found.moments, model, [other])
    for parameter, state in optimizer.state.items():
        assert all(torch.equal(value, other.state[parameter][key]) for key, value in state.items())
    assert read_checkpoint(path.with_name("none.safetensors"), model, OWN) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(b"\xff" * 300)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rewritten(change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        tensors = load_file(path)
        told = {"progress": json.dumps({"history": [], "step": 3, "best_value": 0.5})}
        change(tensors, told)
        save_file(tensors, path, told)

    return damage


def progress(value: Any) -> Callable[[Path], None]:
    return rewritten(lambda _, told: told.update(progress=value if isinstance(value, str) else json.dumps(value)))


DAMAGES = {
    "cut": cut,
    "emptied": emptied,
    "noise": noise,
    "a folder": a_folder,
    "no progress": rewritten(lambda _, told: told.clear()),
    "progress is no JSON": progress('{"history": ['),
    "progress is a list": progress([1]),
    "progress lacks a number": progress({"history": [], "best_value": 1.0}),
    "a number is a word": progress({"history": [], "step": "three", "best_value": 1.0}),
    "no history": progress({"history": None, "step": 3, "best_value": 1.0}),
    "a weight is gone": rewritten(lambda tensors, _: tensors.pop("model/bias")),
    "a weight has another shape": rewritten(lambda tensors, _: tensors.update({"model/bias": torch.zeros(5)})),
    "a weight has another type": rewritten(
        lambda tensors, _: tensors.update({"model/bias": torch.zeros(2, dtype=torch.int64)})
    ),
    "a best weight is gone": rewritten(lambda tensors, _: tensors.pop("best/bias")),
    "something else": rewritten(lambda tensors, _: tensors.update({"codebooks.0": torch.zeros(1)})),
    "moments of another": rewritten(lambda tensors, _: tensors.update({"optimizer/other/exp_avg": torch.zeros(1)})),
    "moments of another shape": rewritten(
        lambda tensors, _: tensors.update({"optimizer/bias/exp_avg": torch.zeros(7)})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name_and_left_alone(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    model, _ = network()
    with pytest.raises(ArtifactError) as raised:
        read_checkpoint(path, model, OWN)
    told = str(raised.value)
    assert told.count(str(path)) == 1
    assert "\n" not in told
    assert "remove it to start afresh" in told
    assert path.exists()


def test_a_checkpoint_of_another_model_is_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"of another model \(weight differs\); remove it"):
        read_checkpoint(path, network(4)[0], OWN)


def test_leftovers_of_kills_are_cleaned(tmp_path: Path) -> None:
    def state(name: str, *files: str, hours: float = 0.0) -> Path:
        folder = tmp_path / "state" / name
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text("x")
        for place in [*folder.iterdir(), folder]:
            os.utime(place, (time.time() - 3600 * hours,) * 2)
        return folder

    half, shard = ".checkpoint.safetensors.a1b2c3d4.safetensors", ".shard-000000128-64.json.x9y8z7w6.json"
    own = state("a" * 20, half, shard, "checkpoint.safetensors", "shard-000000064-64.json")
    old = state("b" * 20, half, "checkpoint.safetensors", hours=5)
    dead = state("c" * 20, half, hours=5)
    busy = state("d" * 20, half)
    empty, fresh = state("e" * 20, hours=5), state("f" * 20)
    other = state("notes", half, hours=5)
    nothing = state("other-empty", hours=5)
    tidy(own)
    assert {file.name for file in own.iterdir()} == {"checkpoint.safetensors", "shard-000000064-64.json"}
    assert [file.name for file in old.iterdir()] == ["checkpoint.safetensors"]
    assert not any((dead / half).parent.glob("*"))
    assert (busy / half).exists()
    assert not empty.exists()
    assert fresh.exists()
    assert (other / half).exists()
    assert nothing.exists()
    (own / half).write_text("x")
    clear(own / "checkpoint.safetensors")
    assert [file.name for file in own.iterdir()] == ["shard-000000064-64.json"]
    (own / "shard-000000064-64.json").unlink()
    clear(own / "checkpoint.safetensors")
    assert not own.exists()
