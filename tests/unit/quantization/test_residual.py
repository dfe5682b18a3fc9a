"""Residual codebooks: choices by brute force, losses by hand, moving averages, revival."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tessera.quantization.residual import ResidualCodebooks, forget
from tessera.settings.quantizers.rq_vae import RQVAE

N, DIM, LEVELS, CODES = 40, 4, 3, 8


def made(**more: Any) -> tuple[ResidualCodebooks, torch.Tensor]:
    torch.manual_seed(2)
    settings = RQVAE(tables=["t"], levels=LEVELS, codes=CODES, dim=DIM, **{"commitment": 0.3, **more})
    module = ResidualCodebooks(settings)
    latent = torch.randn(N, DIM, requires_grad=True)
    module.start(latent.detach())
    return module, latent


def by_hand(module: ResidualCodebooks, latent: torch.Tensor) -> tuple[list[list[int]], torch.Tensor]:
    """Codes and what is left over after each level, an item at a time."""
    codes, left = [], []
    for row in latent.detach().double():
        own, residuals = [], []
        for level in range(LEVELS):
            book = module.codebooks[level].double()
            own.append(int((row - book).square().sum(1).argmin()))
            row = row - book[own[-1]]
            residuals.append(row)
        codes.append(own)
        left.append(torch.stack(residuals))
    return codes, torch.stack(left)


@pytest.mark.parametrize("codebook", ["loss", "ema"])
def test_codes_vectors_and_loss_by_hand(codebook: str) -> None:
    module, latent = made(codebook=codebook)
    codes, left = by_hand(module, latent)
    found = module.eval()(latent)
    assert found.codes.tolist() == codes
    assert torch.allclose(found.vectors.double(), latent.double() - left[:, -1], atol=1e-5)
    # both terms of a level have the value mean |r_l|^2: the codebook's with weight one, the commitment's with 0.3
    weight = 1.3 if codebook == "loss" else 0.3
    assert float(found.loss.detach()) == pytest.approx(weight * float(left.square().mean()), rel=1e-5)


@pytest.mark.parametrize("residual_gradient", ["detach", "straight_through"])
def test_commitment_of_later_levels(residual_gradient: str) -> None:
    module, latent = made(residual_gradient=residual_gradient)
    _, left = by_hand(module, latent)
    module(latent).loss.backward()
    levels = left.sum(1) if residual_gradient == "detach" else left[:, 0]
    expected = 0.3 * 2 * levels / (N * DIM * LEVELS)
    assert torch.allclose(latent.grad.double(), expected, atol=1e-7)


def test_later_levels_alone_reach_nothing_straight_through() -> None:
    module, latent = made(residual_gradient="straight_through")
    with torch.no_grad():  # level one is exact, so that its commitment is zero
        module.codebook(0).copy_(latent[:CODES])
    found = module(latent[:CODES])
    found.loss.backward()
    assert float(found.loss.detach()) > 0
    assert torch.equal(latent.grad, torch.zeros_like(latent))


@pytest.mark.parametrize("estimator", ["straight_through", "rotation", "gumbel"])
def test_every_estimator_gives_codes_and_a_gradient(estimator: str) -> None:
    module, latent = made(estimator=estimator)
    found = module.train()(latent)
    books = module.codebooks
    total = sum(books[level][found.codes[:, level]] for level in range(LEVELS))
    assert torch.allclose(found.vectors, total, atol=1e-5)
    found.vectors.square().sum().backward()
    assert (latent.grad.norm(dim=1) > 0).all()
    again = module.eval()(latent)
    assert again.codes.tolist() == by_hand(module, latent)[0]


def test_moving_averages_follow_the_rows_that_chose_a_code() -> None:
    module, latent = made(codebook="ema", ema_decay=0.9, revive_after=0)
    before = module.codebooks[0].double()
    codes = module.train()(latent).codes[:, 0]
    counts = 0.9 + 0.1 * torch.bincount(codes, minlength=CODES).double()
    sums = 0.9 * before
    for row, code in zip(latent.detach().double(), codes, strict=True):
        sums[code] += 0.1 * row
    smooth = (counts + 1e-5) / (counts.sum() + CODES * 1e-5) * counts.sum()
    assert torch.allclose(module.codebooks[0].double(), sums / smooth[:, None], atol=1e-5)
    assert not list(module.parameters())


@pytest.mark.parametrize("codebook", ["loss", "ema"])
def test_a_code_that_nothing_chooses_moves_onto_a_residual(codebook: str) -> None:
    module, latent = made(codebook=codebook, revive_after=5)
    far = torch.full((2, DIM), 1000.0)
    module._place(1, torch.tensor([3, 6]), far)
    module.train()
    for _ in range(5):
        module(latent)
        assert torch.equal(module.codebooks[1][3], module.codebooks[1][6])
    first = module.codebooks[0]
    found = module(latent)  # five steps without a choice: they move before the sixth
    residuals = latent.detach() - first[found.codes[:, 0]]
    if codebook == "loss":
        placed = module.codebooks[1][[3, 6]]
        assert all(float((residuals - row).abs().sum(1).min()) < 1e-5 for row in placed)
        assert {3, 6} <= set(found.codes[:, 1].tolist())
        assert [rows.tolist() for _, rows in module.moved] == [[3, 6]]
    else:
        assert module.codebooks[1].abs().max() < 100
    assert int(module.unused.max()) <= 5


def test_zero_never_revives() -> None:
    module, latent = made(revive_after=0)
    module._place(1, torch.tensor([3]), torch.full((1, DIM), 1000.0))
    for _ in range(150):
        module.train()(latent)
    assert float(module.codebooks[1].max()) == 1000.0


def test_moments_of_moved_rows_are_forgotten() -> None:
    module, latent = made()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module(latent).loss.backward()
    optimizer.step()
    book = module.codebook(1)
    before = optimizer.state[book]["exp_avg"].clone()
    forget(optimizer, [(book, torch.tensor([2, 5]))])
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[book][name][[2, 5]], torch.zeros(2, DIM))
    kept = [0, 1, 3, 4, 6, 7]
    assert torch.equal(optimizer.state[book]["exp_avg"][kept], before[kept])
    assert float(optimizer.state[book]["step"]) == 1.0


def test_no_rows_are_no_error() -> None:
    module, latent = made(revive_after=1)
    module.unused += 10
    found = module.train()(latent[:0])
    assert found.codes.shape == (0, LEVELS)
