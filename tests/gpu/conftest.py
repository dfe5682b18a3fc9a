"""What the tests of a CUDA machine share: the device, shared draws, and the differences that they measured.

They need an NVIDIA GPU and are skipped without one. `TESSERA_GPU_TESTS_ON=cpu` runs them with the CPU in the place of
the GPU, which tests the tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# before cuBLAS is loaded: the library sets it too, but in a process of its own, which loads CUDA later
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ["HF_HUB_OFFLINE"] = "1"

UNIT = Path(__file__).resolve().parents[1] / "unit"
sys.path.extend(str(UNIT / part) for part in ("recommenders", "embedding", "ctr", "quantization", "language"))

import pytest  # noqa: E402
import torch  # noqa: E402

from tessera.training.machine import pick_device  # noqa: E402

ON = os.environ.get("TESSERA_GPU_TESTS_ON", "cuda")
MEASURED = pytest.StashKey[dict[str, dict[str, float | str]]]()


@pytest.fixture(scope="session")
def device() -> str:
    """`cuda`; `cpu` where the tests themselves are tested."""
    return ON


def _as_torch_starts() -> None:
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cudnn.allow_tf32 = True


@pytest.fixture
def settled(device: str) -> None:
    """The modes under which the library computes there, for tests that put a network on it without the library."""
    pick_device(device)


@pytest.fixture(autouse=True)
def _as_in_a_process_of_its_own() -> Iterator[None]:
    """Skips without a GPU. Modes that training switches on for its process do not reach the next test."""
    if ON == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA here (TESSERA_GPU_TESTS_ON=cpu tries the tests themselves on the CPU)")
    _as_torch_starts()
    yield
    _as_torch_starts()
    if ON == "cuda":
        torch.cuda.synchronize()


@pytest.fixture
def measure(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """`measure(loss=1e-6)`: a number that the end of the run prints beside the test's name."""
    found = request.config.stash.setdefault(MEASURED, {})

    def note(**numbers: float | str) -> None:
        for name, number in numbers.items():
            record_property(name, number)
            found.setdefault(request.node.nodeid.partition("::")[2], {})[name] = number

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured, a line a test."""
    found = config.stash.get(MEASURED, {})
    if not found:
        return
    name = torch.cuda.get_device_name() if ON == "cuda" else "the CPU in the place of a GPU"
    terminalreporter.section(f"measured on {name}, torch {torch.__version__}")
    for test, numbers in found.items():
        told = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
        terminalreporter.write_line(f"{test}: {told}")
