"""The memory bank: what is read is what was written last."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tessera.content.bank import MemoryBank
from tessera.training.checkpoint import Trained, read_checkpoint, save_checkpoint


def test_as_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    bank, kept = MemoryBank(9, 3), {}
    for step in range(30):
        items = rng.integers(1, 10, 5)  # with duplicates
        vectors = rng.normal(size=(5, 3)).astype(np.float32)
        bank.write(torch.from_numpy(items), torch.from_numpy(vectors), step)
        kept.update({int(item): (row, step) for item, row in zip(items, vectors, strict=True)})
        read, age, present = bank.read(torch.arange(10), step + 2)
        assert present.tolist() == [item in kept for item in range(10)]
        for item in range(10):
            row, when = kept.get(item, (np.zeros(3, np.float32), step + 3))
            assert read[item].tolist() == row.tolist()
            assert int(age[item]) == step + 2 - when


def test_histories_are_read_with_padding() -> None:
    bank = MemoryBank(4, 2)
    bank.write(torch.tensor([3]), torch.ones(1, 2, requires_grad=True), 0)
    read, age, present = bank.read(torch.tensor([[3, 0], [1, 3]]), 0)
    assert read.shape == (2, 2, 2)
    assert not read.requires_grad
    assert present.tolist() == [[True, False], [False, True]]
    assert age.tolist() == [[0, -1], [-1, 0]]


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_half_storage(storage: str) -> None:
    bank = MemoryBank(2, 4, storage)  # type: ignore[arg-type]
    vectors = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    bank.write(torch.tensor([2]), vectors, 0)
    read = bank.read(torch.tensor([2]), 0)[0]
    assert read.dtype == torch.float32
    assert torch.equal(read, vectors.to(getattr(torch, storage)).float())


def test_in_a_checkpoint(tmp_path: Path) -> None:
    def model() -> nn.ModuleDict:
        return nn.ModuleDict({"bank": MemoryBank(5, 2), "head": nn.Linear(2, 1)})

    first, second = model(), model()
    first["bank"].write(torch.tensor([1, 4]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 7)  # type: ignore[operator]
    optimizer = torch.optim.Adam(first["head"].parameters())
    save_checkpoint(tmp_path / "a.safetensors", Trained(first), [optimizer], {}, {"step": 8})
    place = second["bank"].vectors.data_ptr()  # type: ignore[union-attr, operator]
    found = read_checkpoint(tmp_path / "a.safetensors", Trained(second), {"step": 0})
    assert found is not None
    Trained(second).load_state_dict(found.model)
    assert second["bank"].vectors.data_ptr() == place  # type: ignore[union-attr, operator]
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize(
    ("items", "vectors", "step", "told"),
    [
        ([6], torch.ones(1, 2), 5, "item 6 is not of the bank, whose ids are 1 to 5"),
        ([0], torch.ones(1, 2), 5, "item 0 is not of the bank"),
        ([1], torch.ones(1, 3), 5, r"\(1, 3\) should be"),
        ([1, 2], torch.tensor([[1.0, 1.0], [1e6, 1.0]]), 5, "row 1, item 2: its vector is not finite as torch.float16"),
        ([1], torch.ones(1, 2), 2, "step 2 lies before"),
    ],
)
def test_refused_writes_change_nothing(items: list[int], vectors: torch.Tensor, step: int, told: str) -> None:
    bank = MemoryBank(5, 2, "float16")
    bank.write(torch.tensor([1]), torch.zeros(1, 2), 3)
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    with pytest.raises(ValueError, match=told):
        bank.write(torch.tensor(items), vectors, step)
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())


def test_reading_before_a_write_is_refused() -> None:
    bank = MemoryBank(5, 2)
    bank.write(torch.tensor([1]), torch.zeros(1, 2), 3)
    with pytest.raises(ValueError, match="step 1 lies before step 3"):
        bank.read(torch.tensor([1, 2]), 1)
