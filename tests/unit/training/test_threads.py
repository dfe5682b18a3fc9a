"""Threads: as many as the config says, whatever cores there are; another number of them is another training."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tessera.artifacts.logs import stage
from tessera.settings.training import Training
from tessera.training.machine import state_identity

ROOT = Path(__file__).resolve().parents[3]
_PROGRAM = """
import hashlib, os, sys
cores, threads = map(int, sys.argv[1:])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
from tessera.artifacts.logs import stage
import torch, numpy as np
with stage(None, threads):
    assert torch.get_num_threads() == threads
    torch.manual_seed(0)
    x, model = torch.randn(4000, 64), torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64))
    (model(x) * torch.randn(4000, 64)).sum().backward()
    found = [x.sum(), *(p.grad for p in model.parameters())]
    matrix = np.random.default_rng(0).standard_normal((500, 300))
    told = b"".join(value.numpy().tobytes() for value in found)
    alone = np.linalg.eigh(matrix.T @ matrix)[1].tobytes()
    print(hashlib.sha256(told).hexdigest(), hashlib.sha256(alone).hexdigest())
"""


def numbers(cores: int, threads: int, environment: str) -> list[str]:
    given = {**os.environ, "OMP_NUM_THREADS": environment, "OPENBLAS_NUM_THREADS": environment}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(cores), str(threads)],
        env=given,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def test_numbers_go_by_the_threads_asked_for_and_not_by_the_cores_that_there_are() -> None:
    first, alone = numbers(cores=1, threads=2, environment="1")
    assert numbers(cores=len(os.sched_getaffinity(0)), threads=2, environment="4") == [first, alone]
    assert numbers(cores=1, threads=1, environment="2")[1] == alone  # numpy's do not depend on them at all


_LOSSES = """
import hashlib, os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from tessera.artifacts.logs import stage
import torch
from tessera.objectives.catalogue import catalogue_loss
from tessera.settings.kinds import settings_class
from tessera.training.machine import pick_device
with stage(None, 2):
    pick_device("cpu")
    torch.manual_seed(0)
    targets, owners = torch.randint(1, 301, (6000,)), torch.arange(6000) % 40
    states, items, histories = torch.randn(6000, 64), torch.randn(301, 64), torch.randint(0, 301, (40, 20))
    for name in ("bce", "bpr", "gbce", "sampled_softmax"):
        loss = catalogue_loss(settings_class("losses", name)(kind=name), torch.ones(301, dtype=torch.int64))
        found = set()
        for _ in range(6):
            torch.manual_seed(1)
            vectors = items.clone().requires_grad_()
            loss(states, vectors, targets, owners, histories).backward()
            found.add(hashlib.sha256(vectors.grad.numpy().tobytes()).hexdigest())
        print(name, len(found))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two threads on one core add in one order")
def test_sampled_losses_have_the_same_gradient_twice_in_two_threads() -> None:
    """The gradient of an index that stands there often is added up; torch does so in any order unless told."""
    done = subprocess.run([sys.executable, "-c", _LOSSES], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["bce", "1", "bpr", "1", "gbce", "1", "sampled_softmax", "1"]


@pytest.fixture
def one_thread() -> None:
    yield
    with stage(None):
        pass


@pytest.mark.usefixtures("one_thread")
def test_a_state_is_that_of_its_number_of_threads() -> None:
    names = []
    for count in (1, 2, 1):
        with stage(None, count):
            assert torch.get_num_threads() == count
            assert os.environ["OMP_NUM_THREADS"] == str(count)  # for processes that share the step
            names.append(state_identity("settings", "code"))
    assert names[0] == names[2] != names[1]


def test_a_state_is_that_of_the_device_that_auto_found(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, cpu = Training().canonical(), Training(device="cpu").canonical()
    before = [state_identity(settings, "code") for settings in (auto, cpu)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    after = [state_identity(settings, "code") for settings in (auto, cpu)]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_every_stage_that_computes_in_threads_has_their_number_in_its_params() -> None:
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    found = 0
    for rule in re.split(r"(?m)^rule ", rules)[1:]:
        script = re.search(r'"\.\./\.\./scripts/(\w+)\.py"', rule)
        if script is None:
            continue  # a shell command
        uses = "snakemake.params.threads" in (ROOT / "scripts" / f"{script[1]}.py").read_text()
        given = re.search(r"\n {8}threads=.*CONFIG\.resources\.(\w+)\.threads", rule)
        assert uses == bool(given), script[1]
        if given:
            found += 1
            assert re.search(rf"\n    threads: .*CONFIG\.resources\.{given[1]}\.threads", rule)
    assert found == 15
