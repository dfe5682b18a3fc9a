"""Models are safetensors with JSON beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tessera.artifacts.models import read_model, write_model
from tessera.artifacts.tables import ArtifactError


def test_round_trip(tmp_path: Path) -> None:
    weights = {"w": torch.randn(3, 2), "turned": torch.randn(2, 3).T}
    write_model(tmp_path / "model.safetensors", weights, {"items": 7})
    found, description = read_model(tmp_path / "model.safetensors")
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert description["items"] == 7


def test_a_missing_half_is_told(tmp_path: Path) -> None:
    write_model(tmp_path / "model.safetensors", {"w": torch.zeros(1)}, {})
    (tmp_path / "model.json").unlink()
    with pytest.raises(ArtifactError, match=r"model\.json: no such file"):
        read_model(tmp_path / "model.safetensors")
