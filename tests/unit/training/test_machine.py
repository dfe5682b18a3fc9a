"""Where training and scoring happen: the modes of a GPU, settled in one place."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import tessera
from tessera.settings.training import Training
from tessera.training import attend
from tessera.training.machine import Machine, pick_device

SOURCES = sorted(Path(tessera.__file__).parent.rglob("*.py"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch says that there is a GPU. Its modes can be set without one, and are put back."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    # restored after the test, however it was set
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG")
    before = torch.backends.cudnn.allow_tf32, torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cudnn.allow_tf32, torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_a_gpu_gives_the_same_bits_in_full_float32(name: str, gpu: None) -> None:
    assert pick_device(name) == torch.device("cuda")
    assert torch.are_deterministic_algorithms_enabled()
    # a warning alone leaves the order of attention's gradients open
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_cpu_adds_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.use_deterministic_algorithms(False)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    assert pick_device("cpu") == torch.device("cpu")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.backends.cuda.cudnn_sdp_enabled(), "what is of GPUs alone stays as it is"
    torch.use_deterministic_algorithms(False)


def test_training_computes_as_scoring_does(gpu: None) -> None:
    assert Machine(Training(device="cuda")).device.type == "cuda"
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_cublas_as_it_differs_between_runs_is_refused(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    with pytest.raises(ValueError, match=r"is ':4096:2:16:8'.*expected :4096:8 or :16:8"):
        pick_device("cuda")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    pick_device("cuda")


def _names(path: Path) -> set[str]:
    """Dotted names in a file, of whatever is read or called."""
    return {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def test_nobody_else_takes_a_gpu_or_changes_its_modes() -> None:
    """Training, scoring, clustering and language models get their device from one function."""
    own = ("torch.cuda.is_available", "torch.set_deterministic", "torch.use_deterministic", "torch.backends",
           "torch.device('cuda')")  # fmt: skip
    found = {path.name: sorted(name for name in _names(path) if name.startswith(own)) for path in SOURCES}
    assert [name for name, used in found.items() if used] == ["machine.py"]


def test_attention_is_asked_in_one_place() -> None:
    """Kernels that fail beyond 65,535 rows are called where rows are divided."""
    users = [path.name for path in SOURCES if any("scaled_dot_product" in name for name in _names(path))]
    assert users == ["attend.py"]


def test_rows_in_parts_attend_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(7, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    visible = torch.rand(7, 1, 1, 5) < 0.7
    visible[..., 0] = True
    for mask, causal in ((None, True), (None, False), (visible, False), (visible[:1], False)):
        found = []
        for rows in (7, 3):
            monkeypatch.setattr(attend, "ROWS", rows)
            seen = attend.attend(query, key, value, mask, causal)
            found.append((seen, *torch.autograd.grad(seen.square().sum(), (query, key, value))))
        torch.testing.assert_close(found[1], found[0])
        plain = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
        torch.testing.assert_close(found[0][0], plain)


def test_an_operation_in_no_fixed_order_is_told_with_what_helps(tmp_path: Path) -> None:
    """`put_` is one that torch refuses on the CPU, too."""
    program = (
        "import sys, torch\nfrom tessera.artifacts.logs import stage\nwith stage(sys.argv[1]):\n"
        "    torch.use_deterministic_algorithms(True)\n"
        "    torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "ERROR: put_: torch computes this in no fixed order" in last
    assert "device: cpu" in last
