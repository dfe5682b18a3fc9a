"""Weights that are not there yet: a model is made without memory before it is read, and every weight must be filled."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from tessera.language.models import _unfilled


def test_weights_and_buffers_that_no_file_filled_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert _unfilled(model) == []
    with torch.device("meta"):
        model.append(nn.Linear(2, 2, bias=False))
        model[1].register_buffer("frequencies", torch.ones(2), persistent=False)
    assert _unfilled(model) == ["1.frequencies", "2.weight"]


def test_shared_draws_of_the_tests_leave_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of a GPU draw on the CPU in its place, while transformers makes the picture tower on `meta`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "gpu"))
    draws = importlib.import_module("watch").SharedDraws()
    with draws, torch.device("meta"):
        made = nn.Conv3d(3, 4, 2)
    assert made.weight.is_meta
