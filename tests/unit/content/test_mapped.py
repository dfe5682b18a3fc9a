"""Buffers in files: the same numbers, no memory of their own, nothing left behind."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from tessera.artifacts.models import read_tensors, write_tensors
from tessera.content.bank import MemoryBank
from tessera.content.mapped import Table, in_file


def own_memory() -> int:
    """Bytes of this process that no file backs."""
    (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_a_bank_in_files_holds_what_one_in_memory_holds(storage: str, tmp_path: Path) -> None:
    kept, mapped = (MemoryBank(50, 4, storage, in_files) for in_files in (False, True))  # type: ignore[arg-type]
    kept.write(torch.tensor([7]), torch.full((1, 4), 2.0), 0)
    mapped.write(torch.tensor([7]), torch.full((1, 4), 2.0), 0)
    mapped.place(tmp_path)
    for step in range(1, 20):
        items, vectors = torch.randint(1, 51, (6,)), torch.randn(6, 4)
        for bank in (kept, mapped):
            bank.write(items, vectors, step)
    for one, other in zip(kept.read(torch.arange(51), 30), mapped.read(torch.arange(51), 30), strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(tensor, mapped.state_dict()[name]) for name, tensor in kept.state_dict().items())
    assert not list(tmp_path.iterdir())  # it goes with the process


def test_it_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    size = 64 * 2**20
    table = Table(size // 256, 64, mapped=True)
    before = own_memory()
    table.place(tmp_path)
    table.rows.fill_(1.0)
    assert own_memory() - before < size / 8
    assert float(table(torch.tensor([[3, 9]])).sum()) == 128.0


def test_it_stays_where_it_is_and_is_read_back_as_pages_of_the_file(tmp_path: Path) -> None:
    model = nn.ModuleDict({"table": Table(10, 3, mapped=True), "head": nn.Linear(3, 1)})
    model["table"].place(tmp_path / "state")  # type: ignore[operator]
    model["table"].rows.copy_(torch.randn(10, 3))  # type: ignore[union-attr, operator]
    place = model["table"].rows.data_ptr()  # type: ignore[union-attr, operator]
    model.to("meta" if not torch.cuda.is_available() else "cuda")
    assert model["table"].rows.data_ptr() == place  # type: ignore[union-attr, operator]
    table = model["table"]
    write_tensors(tmp_path / "a.safetensors", table.state_dict())
    tensors = read_tensors(tmp_path / "a.safetensors")
    again = Table(10, 3, mapped=True)
    again.load_state_dict(tensors)
    assert again.rows.data_ptr() == tensors["rows"].data_ptr()
    assert torch.equal(again.rows, table.rows)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="size mismatch"):
        Table(11, 3, mapped=True).load_state_dict(tensors)


def test_a_full_disk_is_told_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"GiB are needed for a table of \(5, 2\): .*No space left"):
        in_file(tmp_path, torch.zeros(5, 2))
    assert not list(tmp_path.iterdir())
