"""How the multimodal RQ-VAE draws the parts of an item together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tessera.quantization.autoencoder import Passed
from tessera.quantization.mm_rq_vae import alignment, fit, losses
from tessera.quantization.residual import Quantized
from tessera.quantization.vectors import PartVectors
from tessera.settings.quantizers.base import SemanticIds


def settings_of(**more: Any) -> Any:
    chosen = {"quantizer": "mm_rq_vae", "tables": ["a", "b"], **more}
    return TypeAdapter[SemanticIds](SemanticIds).validate_python(chosen)


def passed(vectors: Tensor, rows: list[int]) -> Passed:
    quantized = Quantized(torch.zeros(len(rows), 1, dtype=torch.int64), vectors, vectors.new_zeros(()))
    return Passed(vectors, vectors, quantized, torch.tensor(rows))


@pytest.mark.parametrize("direction", ["first", "both"])
def test_alignment_by_definition(direction: str) -> None:
    """-log of the softmax of cosines over 0.1 at the item itself, of the items that both parts have."""
    generator = torch.Generator().manual_seed(4)
    first, other = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    total = alignment(
        [passed(first, [0, 1, 2, 5]), passed(other, [1, 2, 3, 5])], settings_of(align_direction=direction)
    )
    x, y = first[[1, 2, 3]], other[[0, 1, 3]]
    there, back = 0.0, 0.0
    for i in range(3):
        cosines = [float(torch.cosine_similarity(x[i], y[j], dim=0)) / 0.1 for j in range(3)]
        there -= float(torch.tensor(cosines).log_softmax(0)[i]) / 3
        cosines = [float(torch.cosine_similarity(y[i], x[j], dim=0)) / 0.1 for j in range(3)]
        back -= float(torch.tensor(cosines).log_softmax(0)[i]) / 3
    assert float(total) == pytest.approx(there if direction == "first" else (there + back) / 2, rel=1e-6)


def test_batches_that_compare_nothing_are_passed_over(tmp_path: Path) -> None:
    """Two tables of other items: many a batch of two holds a row of either."""
    settings = settings_of(levels=2, codes=4, hidden=[8], dim=4, training={"steps": 30, "batch": 2, "device": "cpu"})
    rng = np.random.default_rng(0)
    first = np.arange(40) < 8
    data = [
        PartVectors(name, (rng.normal(size=(40, 6)) * own[:, None]).astype(np.float32), own, (6,))
        for name, own in (("a", first), ("b", ~first))
    ]
    fitted = fit(settings, data, tmp_path)
    assert all(np.isfinite(row["loss"]) for row in fitted.history)
    nothing = losses([passed(torch.ones(1, 3, requires_grad=True), [0]), passed(torch.ones(0, 3), [])], settings, "ab")
    assert float(nothing["loss"].value.detach()) == 0
    nothing["loss"].value.backward()


def test_the_published_preset_aligns_from_the_first_table() -> None:
    official = settings_of(preset="official")
    assert (official.align, official.align_direction, official.align_temperature) == ("infonce", "first", 0.1)
