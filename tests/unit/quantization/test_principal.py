"""Autoencoders that start as principal components: equal to the singular value decomposition, and able to learn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tessera.quantization.autoencoder import perceptron
from tessera.quantization.base import Quantizer
from tessera.quantization.principal import start_at_components
from tessera.quantization.rq_vae import fit
from tessera.quantization.vectors import PartVectors
from tessera.settings.quantizers.rq_vae import RQVAE

torch.set_num_threads(1)


def rows(count: int = 300, width: int = 12) -> torch.Tensor:
    rng = np.random.default_rng(0)
    made = rng.standard_normal((count, width)) @ rng.standard_normal((width, width))
    made -= made.mean(0)
    return torch.from_numpy(made / np.sqrt(np.square(made).mean()))


def networks(widths: list[int]) -> tuple[torch.nn.Sequential, torch.nn.Sequential]:
    torch.manual_seed(0)
    return perceptron(widths).double(), perceptron(widths[::-1]).double()


@pytest.mark.parametrize(
    ("hidden", "dim", "carried"), [([], 4, 4), ([16], 4, 4), ([20, 10, 9], 4, 4), ([6], 4, 3), ([64], 20, 12)]
)
def test_it_starts_as_the_best_linear_reconstruction(hidden: list[int], dim: int, carried: int) -> None:
    x = rows()
    encoder, decoder = networks([12, *hidden, dim])
    assert start_at_components(encoder, decoder, x) == carried
    left, spread, right = np.linalg.svd(x.numpy(), full_matrices=False)
    expected = (left[:, :carried] * spread[:carried]) @ right[:carried]
    with torch.no_grad():
        latent = encoder(x)
        np.testing.assert_allclose(decoder(latent).numpy(), expected, atol=1e-10)
    share = np.square(spread[:carried]).sum() / np.square(spread).sum()
    assert float(latent.square().mean()) == pytest.approx(share)
    assert not latent[:, carried:].any()


def test_what_carries_nothing_learns() -> None:
    x = rows()
    encoder, decoder = networks([12, 30, 14, 6])
    start_at_components(encoder, decoder, x)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    errors = []
    for _ in range(60):
        loss = F.mse_loss(decoder(encoder(x)), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < errors[0]
    for module in (encoder, decoder):
        for layer in module[::2]:
            moved = optimizer.state[layer.weight]["exp_avg_sq"]
            assert bool((moved.sum(1) > 0).all()), "a unit without gradient"


def test_no_more_directions_than_rows_tell() -> None:
    x = rows(count=4)
    encoder, decoder = networks([12, 30, 8])
    assert start_at_components(encoder, decoder, x) == 3


def test_few_steps_leave_less_than_from_random_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    kinds = rng.standard_normal((16, 24))[rng.integers(0, 16, 400)]
    vectors = (kinds + 0.5 * rng.standard_normal((400, 24))).astype(np.float32)
    data = PartVectors("t", vectors, np.ones(400, bool), (24,))
    left = {}
    for start in ("principal", "random"):
        training = {"steps": 20, "batch": 400, "device": "cpu"}
        settings = RQVAE(tables=["t"], codes=16, hidden=[32], dim=8, first_weights=start, training=training)
        quantizer = Quantizer(settings, fit(settings, [data], tmp_path / start).parts)
        made = quantizer.decode(quantizer.assign([vectors]))[0]
        left[start] = np.square(made - vectors).sum() / np.square(vectors - vectors.mean(0)).sum()
    assert left["principal"] < 0.7 * left["random"]
