"""Every kind of training on the GPU: as on the CPU, twice the same, in bfloat16, and on after a kill."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import MADE, TRAINED, Place, Result, Train
from torch import Tensor
from watch import STEPS, SharedDraws, Watched, watching

from tessera.artifacts.logs import Terminated
from tessera.quantization.kmeans import kmeans
from tessera.training.machine import pick_device

pytestmark = pytest.mark.gpu

FIRST = 5e-5
"""Most relative difference of the first loss: same weights, same batch, float32 sums in another order."""
CURVE = 5e-3
"""Most relative difference of any of the 20 losses: what rounding grows to through 20 steps of Adam."""
WEIGHTS = 0.05
"""Most distance of the weights after 20 steps, as a share of how far they went. A weight whose gradient is zero but for
rounding (a bias of keys in attention) is moved by Adam as far as others, either way; there are few."""
CHOICES = 4
"""Quantisers may differ so many times as much: rows as near to two codes as to one take either, and teach it."""
CODES = 0.98
"""Least share of equal codes. A vector that is as near to two codes may take either."""
POLICIES = ("crrl", "crrl-token")
TIES = 2
"""Steps of a policy, of 20, whose loss may be another: its rewards are ranks of items, and of two that are as near but
for rounding either may come first."""
ONCE = [name for name in TRAINED if name.count("/") < 2]
"""All but other losses, of which there is no other loop."""
STOP = 11
"""The step before which trainings are stopped."""


@dataclass
class Ran:
    """One training, to its end."""

    watched: Watched
    made: Result
    warned: list[str]
    """Operations that told that they are not deterministic."""
    modes: dict[str, bool]
    """How torch computed at the end."""


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """`ran(name, place, copy)`: a training; the same one is done once, and another copy anew."""
    root = tmp_path_factory.mktemp("kinds")
    done: dict[tuple[str, Place, str], Ran] = {}

    def run(name: str, place: Place, copy: str = "") -> Ran:
        key = (name, place, copy)
        if key not in done:
            folder = root / name.replace("/", "-") / f"run-{len(done)}"
            folder.mkdir(parents=True)
            done[key] = go(TRAINED.get(name) or MADE[name], place, folder)
        return done[key]

    return run


def go(train: Train, place: Place, folder: Path, stop: int | None = None) -> Ran:
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as caught, watching(stop) as watched:
        warnings.simplefilter("always")
        made = train(place, folder)
    found = {str(one.message).splitlines()[0] for one in caught}
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    modes = {
        "strict": torch.are_deterministic_algorithms_enabled() and not warned_only,
        "cuDNN's attention": torch.backends.cuda.cudnn_sdp_enabled(),
        "TF32": torch.backends.cudnn.allow_tf32,
    }
    return Ran(watched, made, sorted(line for line in found if "determinis" in line), modes)


def apart(first: Result, second: Result, start: Result | None = None) -> tuple[float, str]:
    """Distance of all tensors, as a share of the way that the second went, and the tensor that differs most."""
    assert first.keys() == second.keys()
    squares, way, worst = 0.0, 0.0, (0.0, "")
    for name, other in second.items():
        if not other.is_floating_point():
            continue
        difference = float((first[name].double() - other.double()).square().sum())
        moved = other.double() - (start[name].double() if start else 0)
        squares, way = squares + difference, way + float(moved.square().sum())
        worst = max(worst, (difference, name))
    return math.sqrt(squares / max(way, 1e-30)), worst[1]


def same(first: Result, second: Result) -> list[str]:
    """Names of tensors of other bits."""
    assert first.keys() == second.keys()

    def as_bytes(tensor: Tensor) -> bytes:
        return tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes()

    return [name for name, value in first.items() if as_bytes(value) != as_bytes(second[name])]


# ---------------------------------------------------------------- as on the CPU


@pytest.mark.parametrize("name", TRAINED)
def test_20_steps_are_those_of_the_cpu(
    name: str, device: str, ran: Callable[..., Ran], measure: Callable[..., None]
) -> None:
    """Same start, same batches, same draws, no dropout: losses and weights agree to what is stated above."""
    with SharedDraws():
        here, there = ran(name, Place("cpu"), "agree"), ran(name, Place(device), f"agree on {device}")
    ours, theirs = (np.array(one.watched.losses[:STEPS]) for one in (there, here))
    assert len(theirs) == STEPS
    assert not same(there.watched.first, here.watched.first) or name.startswith("quantizer"), "not the same start"
    # a loss that goes through nought, as a policy's does, is compared with what the others are
    differences = np.abs(ours - theirs) / np.maximum(np.abs(theirs), np.abs(theirs).mean())
    weights, worst = apart(there.watched.at, here.watched.at, here.watched.first)
    measure(first=float(differences[0]), curve=float(differences.max()), weights=weights)
    if name in POLICIES:
        assert differences.max() <= 1, f"a loss differs by {differences.max():.2e} of what losses are: {ours}, {theirs}"
        differences = np.sort(differences)[: STEPS - TIES]
    often = CHOICES if name.startswith("quantizer") else 1
    told = f"losses {ours.tolist()} on {device}, {theirs.tolist()} on the CPU; weights differ most in {worst}"
    assert differences[0] <= FIRST, f"the first loss differs by {differences[0]:.2e} of itself: {told}"
    assert differences.max() <= often * CURVE, f"a loss differs by {differences.max():.2e} of itself: {told}"
    assert weights <= often * WEIGHTS, f"weights are apart by {weights:.2e} of their way: {told}"


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_at_once_is_that_of_the_cpu(
    name: str, device: str, ran: Callable[..., Ran], measure: Callable[..., None]
) -> None:
    here, there = ran(name, Place("cpu"), "agree").made, ran(name, Place(device), f"agree on {device}").made
    if name.startswith("text"):
        distance, _ = apart(there, here)
        measure(vectors=distance)
        assert distance <= 1e-5
        return
    codes = [key for key in here if key.startswith("codes.")]
    equal = min(float((here[key] == there[key]).float().mean()) for key in codes)
    distance, worst = apart(there, here)
    measure(codes=equal, all=distance)
    assert equal >= CODES, f"only {equal:.3f} of the codes are equal"
    assert distance <= 0.02, f"apart by {distance:.2e}, most in {worst}"


@pytest.mark.parametrize("name", [name for name in TRAINED if name.startswith("quantizer/")])
def test_codes_of_a_trained_quantiser_are_those_of_the_cpu(
    name: str, device: str, ran: Callable[..., Ran], measure: Callable[..., None]
) -> None:
    with SharedDraws():
        here, there = (ran(name, Place(d), c).made for d, c in (("cpu", "agree"), (device, f"agree on {device}")))
    codes = [key for key in here if key.startswith("codes.")]
    equal = min(float((here[key] == there[key]).float().mean()) for key in codes)
    measure(codes=equal)
    assert equal >= CODES - 0.05, f"only {equal:.3f} of the codes are equal"


# ---------------------------------------------------------------- twice the same


@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_two_runs_give_the_same_bits(name: str, device: str, ran: Callable[..., Ran]) -> None:
    first, second = (ran(name, Place(device, drop=True), copy) for copy in ("one", "two"))
    assert first.watched.losses == second.watched.losses, "losses differ"
    assert not same(first.made, second.made)


@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_every_kind_computes_under_the_modes_of_the_library(name: str, device: str, ran: Callable[..., Ran]) -> None:
    """A warning is not enough: attention's gradients come in any order then, and it is told once a process."""
    found = ran(name, Place(device, drop=True), "one").modes
    on = device == "cuda"
    assert found == {"strict": on, "cuDNN's attention": not on, "TF32": not on}


@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_no_operation_tells_that_it_is_not_deterministic(name: str, device: str, ran: Callable[..., Ran]) -> None:
    """Torch warns in its deterministic mode: equal bits of two runs were luck then."""
    warned = ran(name, Place(device, drop=True), "one").warned
    assert not warned, "\n".join(warned)


# ---------------------------------------------------------------- bfloat16


@pytest.mark.parametrize("name", ONCE)
def test_bfloat16_trains(name: str, device: str, ran: Callable[..., Ran], measure: Callable[..., None]) -> None:
    losses = ran(name, Place(device, "bfloat16", steps=40), "half").watched.losses
    assert np.isfinite(losses).all()
    # a third of the steps: a step of few targets, as the last of an epoch, tells little alone
    third = len(losses) // 3
    before, after = float(np.mean(losses[:third])), float(np.mean(losses[-third:]))
    measure(before=before, after=after)
    if name in POLICIES:
        return  # the loss of a policy does not fall: its rewards rise, slowly
    assert after < before, f"the loss was {before:.4f} and is {after:.4f}: {losses}"


@pytest.mark.parametrize("kind", ["text/decoder", "text/encoder"])
def test_a_table_in_bfloat16_is_near_that_in_float32(
    kind: str, device: str, ran: Callable[..., Ran], measure: Callable[..., None]
) -> None:
    exact, half = (ran(kind, Place(device, precision), "half").made["vectors"] for precision in ("float32", "bfloat16"))
    cosine = float(torch.nn.functional.cosine_similarity(exact.float(), half.float()).min())
    measure(cosine=cosine)
    assert cosine > 0.995


# ---------------------------------------------------------------- stopped and resumed


@pytest.mark.parametrize("name", ONCE)
def test_a_stopped_run_ends_with_the_same_bytes(
    name: str, device: str, ran: Callable[..., Ran], tmp_path: Path
) -> None:
    whole = ran(name, Place(device, drop=True), "one")
    folder = tmp_path / "run"
    folder.mkdir()
    place = Place(device, drop=True)
    with pytest.raises(Terminated):
        go(TRAINED[name], place, folder, STOP)
    assert list(folder.rglob("checkpoint.safetensors"))
    rest = go(TRAINED[name], place, folder)
    assert rest.watched.losses == whole.watched.losses[STOP:], "losses after the resume differ"
    assert not same(whole.made, rest.made)


PROGRAM = """
import sys
from pathlib import Path
import conftest, kinds, watch
import torch
torch.set_num_threads(1)
name, device, folder, stop = sys.argv[1:]
with watch.watching(int(stop), kill=True):
    kinds.TRAINED[name](kinds.Place(device, drop=True, often=True), Path(folder))
"""


@pytest.mark.parametrize("name", ["sasrec/ids", "lrcl"])
def test_a_killed_process_is_resumed_to_the_same_bytes(
    name: str, device: str, ran: Callable[..., Ran], tmp_path: Path
) -> None:
    """SIGKILL, in a process of its own, after the state was written."""
    whole = ran(name, Place(device, drop=True), "one")
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, name, device, str(folder), str(STOP)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == -9, done.stderr[-3000:]
    assert list(folder.rglob("checkpoint.safetensors"))
    rest = go(TRAINED[name], Place(device, drop=True, often=True), folder)
    assert len(rest.watched.losses) < len(whole.watched.losses)
    assert not same(whole.made, rest.made)


def test_clustering_of_a_large_table_gives_the_same_bits(device: str) -> None:
    """Atomic additions differ from run to run only where many blocks add at once."""
    drawn = np.random.default_rng(0).standard_normal((50_000, 32)).astype(np.float32)
    vectors = torch.from_numpy(drawn).to(pick_device(device))
    first, second = (kmeans(vectors, 64, 3, (1,)) for _ in range(2))
    assert torch.equal(first.centres, second.centres)
    assert torch.equal(first.assigned, second.assigned)
