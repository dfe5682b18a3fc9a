"""How the multimodal RQ-VAE draws the parts of an item together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tessera.quantization.autoencoder import Passed
from tessera.quantization.mm_rq_vae import alignment
from tessera.quantization.residual import Quantized
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


def test_the_published_preset_aligns_from_the_first_table() -> None:
    official = settings_of(preset="official")
    assert (official.align, official.align_direction, official.align_temperature) == ("infonce", "first", 0.1)
