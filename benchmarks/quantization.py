"""Quantisers side by side: RQ-VAE with vector-quantize-pytorch and a plain loop, MMD by products, k-means with faiss.

All RQ-VAE sides have the same encoder, decoder, optimiser, rows and steps; they differ in the codebooks between.
Quality is judged on the whole catalogue every few steps, outside the clock, so that equal quality can be compared and
not only equal steps. The peer is put beside the library, without dependencies that would replace torch:

    pip install --no-deps --target PEER vector-quantize-pytorch einops einx frozendict torch-einops-utils loguru
    OMP_NUM_THREADS=1 PYTHONPATH=PEER python benchmarks/quantization.py --steps 200 --every 25
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.objectives.mmd import mmd
from tessera.quantization.autoencoder import Batches, perceptron
from tessera.quantization.base import Quantizer
from tessera.quantization.conflicts import collisions
from tessera.quantization.kmeans import kmeans
from tessera.quantization.residual import ResidualCodebooks
from tessera.quantization.rq_kmeans import faiss_kmeans
from tessera.quantization.rq_vae import fit
from tessera.quantization.vectors import PartVectors, standard
from tessera.settings.quantizers.learned_base import QuantizerSteps
from tessera.settings.quantizers.rq_vae import RQVAE

LEVELS, CODES, DIM = 3, 256, 32
HIDDEN = [512, 256, 128]


def catalogue(items: int, width: int) -> np.ndarray:
    """Made-up item vectors: 40 kinds, 12 sorts of each, and items that differ along 64 directions; unit length."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((40, width))
    sorts = kinds[:, None] + 0.7 * rng.standard_normal((40, 12, width))
    spread = rng.standard_normal((64, width)) / 8
    rows = sorts.reshape(-1, width)[rng.integers(0, 480, items)] + 0.7 * rng.standard_normal((items, 64)) @ spread
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Broadcast(nn.Module):
    """Codebooks as first written down: differences of all pairs, codes of random numbers, no revival."""

    def __init__(self) -> None:
        super().__init__()
        self.books = nn.ParameterList(torch.empty(CODES, DIM).uniform_(-1 / CODES, 1 / CODES) for _ in range(LEVELS))

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        residual, total, loss, codes = latent, torch.zeros_like(latent), latent.new_zeros(()), []
        for book in self.books:
            distances = (residual[:, None] - book[None]).square().sum(-1)
            codes.append(distances.argmin(1))
            code = F.one_hot(codes[-1], CODES).float() @ book
            loss = loss + F.mse_loss(code, residual.detach()) + 0.25 * F.mse_loss(residual, code.detach())
            residual, total = residual - code.detach(), total + code
        return latent + (total - latent).detach(), torch.stack(codes, 1), loss / LEVELS


class Peer(nn.Module):
    """ResidualVQ of vector-quantize-pytorch: k-means from the first batch, moving averages, revival."""

    def __init__(self) -> None:
        super().__init__()
        from vector_quantize_pytorch import ResidualVQ

        self.inner = ResidualVQ(
            dim=DIM, num_quantizers=LEVELS, codebook_size=CODES, kmeans_init=True, kmeans_iters=20, decay=0.99,
            threshold_ema_dead_code=1, commitment_weight=0.25,
        )  # fmt: skip

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors, codes, loss = self.inner(latent)
        return vectors, codes, loss.mean()


Row = tuple[int, float, float, int, int]
"""Step, CPU seconds so far, squares left, collisions, codes that no item has."""


def judged(step: int, seconds: float, x: Tensor, made: Tensor, codes: np.ndarray) -> Row:
    left = float((made - x).square().sum() / (x - x.mean(0)).square().sum())
    used = sum(len(np.unique(codes[:, level])) for level in range(LEVELS))
    return step, seconds, left, collisions(codes), LEVELS * CODES - used


def training(quantizer: nn.Module, x: Tensor, batch: int) -> tuple[nn.ModuleList, Callable[[int], None]]:
    """Encoder, codebooks and decoder of a side that is not ours, and its step, for standardised rows x (n, width)."""
    torch.manual_seed(1)
    widths = [x.shape[1], *HIDDEN, DIM]
    encoder, decoder = perceptron(widths), perceptron(widths[::-1])
    model = nn.ModuleList([encoder, quantizer, decoder]).to(x.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    batches = Batches(len(x), batch, 1)

    def work(step: int) -> None:
        rows = x[torch.from_numpy(batches.rows(step)).to(x.device)]
        latent, _, loss = quantizer(encoder(rows))
        total = F.mse_loss(decoder(latent), rows) + loss
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return model, work


def others(quantizer: nn.Module, vectors: np.ndarray, steps: int, every: int, batch: int) -> Iterator[Row]:
    """Train a side that is not ours."""
    x = torch.from_numpy(vectors)
    x = standard(x, (x.shape[1],)).apply(x)
    model, work = training(quantizer, x, batch)
    encoder, _, decoder = model
    seconds = 0.0
    for step in range(steps):
        started = time.process_time()
        work(step)
        seconds += time.process_time() - started
        if (step + 1) % every == 0:
            model.eval()
            with torch.no_grad():
                latent, codes, _ = quantizer(encoder(x))
                yield judged(step + 1, seconds, x, decoder(latent), codes.numpy())
            model.train()


def ours(codebook: str, first_weights: str, vectors: np.ndarray, steps: int, every: int, batch: int) -> Iterator[Row]:
    """Train by the library, with all it does, components and k-means of the catalogue included; anew each time."""
    data = PartVectors("t", vectors, np.ones(len(vectors), bool), (vectors.shape[1],))
    x = torch.from_numpy(vectors)
    with tempfile.TemporaryDirectory() as folder:
        for stop in range(every, steps + 1, every):
            training = QuantizerSteps(steps=stop, batch=batch, device="cpu", checkpoint_seconds=1e9)
            settings = RQVAE(
                tables=["t"], levels=LEVELS, codes=CODES, dim=DIM, hidden=HIDDEN, codebook=codebook,
                first_weights=first_weights, training=training,
            )  # fmt: skip
            started = time.process_time()
            found = fit(settings, [data], Path(folder) / str(stop))
            seconds = time.process_time() - started
            quantizer = Quantizer(settings, found.parts)
            codes = quantizer.assign([vectors])
            yield judged(stop, seconds, x, torch.from_numpy(quantizer.decode(codes)[0]), codes[0])


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds after a warm-up."""
    work()
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return statistics.median(found)


def codebook_steps(batch: int) -> None:
    """Forward and backward of the codebooks alone."""
    print("\n| codebooks alone, forward and backward | ms |\n|---|---|")
    latent = torch.randn(batch, DIM)
    for name, module in (
        ("ours, loss", ResidualCodebooks(RQVAE(tables=["t"], levels=LEVELS, codes=CODES, dim=DIM))),
        ("ours, ema", ResidualCodebooks(RQVAE(tables=["t"], levels=LEVELS, codes=CODES, dim=DIM, codebook="ema"))),
        ("vector-quantize-pytorch", Peer()),
        ("plain loop", Broadcast()),
    ):
        module.train()

        def work(module: nn.Module = module) -> None:
            z = latent.clone().requires_grad_()
            made = module(z)
            vectors, loss = (made.vectors, made.loss) if hasattr(made, "vectors") else (made[0], made[2])
            (vectors.square().mean() + loss).backward()

        print(f"| {name} | {1000 * seconds_of(work, 15):.1f} |")


def clouds(n: int, dim: int) -> None:
    """MMD by products and by differences."""
    torch.manual_seed(0)
    x, y = torch.randn(n, dim, requires_grad=True), torch.randn(n, dim)

    def differences() -> Tensor:
        both = torch.cat([x, y])
        distances = (both[:, None] - both[None]).square().sum(-1)
        kernel = torch.exp(-distances / distances.mean().detach())
        within = sum(block.sum() - block.trace() for block in (kernel[:n, :n], kernel[n:, n:]))
        return within / (n * (n - 1)) - 2 * kernel[:n, n:].mean() + 2 / (n - 1)

    apart = abs(float(mmd(x, y).detach()) - float(differences().detach()))
    a = seconds_of(lambda: mmd(x, y).backward(), 5)
    b = seconds_of(lambda: differences().backward(), 1)
    print(f"\nMMD ({n}, {dim}), value and gradient: {1000 * a:.1f} ms by products, {1000 * b:.0f} ms by differences")
    print(f"({b / a:.0f}x); values differ by {apart:.1e}; largest tensor, MiB by products and by differences:")
    for rows, width in ((n, dim), (2048, 4096)):
        print(f"({rows}, {width}): {4 * rows**2 / 2**20:.0f} and {16 * rows**2 * width / 2**20:.0f}")


def clusters(vectors: np.ndarray) -> None:
    """k-means beside faiss."""
    x = torch.from_numpy(vectors)
    print("\n| k-means, 256 clusters | iterations | CPU s | mean squared distance |\n|---|---|---|---|")
    for name, run in (
        ("ours", lambda: kmeans(x, 256, 20, (1,))),
        ("faiss", lambda: faiss_kmeans(x, 256, 20, 1)),
    ):
        started = time.process_time()
        found = run()
        print(f"| {name} | {found.iterations} | {time.process_time() - started:.2f} | {found.error:.4f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=12000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--vectors", type=Path, help="real vectors (.npy) instead of made-up ones")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    vectors = catalogue(arguments.items, arguments.width)
    if arguments.vectors:
        vectors = np.unique(np.load(arguments.vectors).astype(np.float32), axis=0)
    clusters(vectors)
    clouds(512, 256)
    codebook_steps(arguments.batch)
    plan = (vectors, arguments.steps, max(arguments.every, arguments.steps // 4), arguments.batch)
    short = (vectors, arguments.steps // 2, arguments.every, arguments.batch)
    print(f"\n{len(vectors)} items x {vectors.shape[1]}")
    print(
        "\n| side | step | CPU s | ms a step | squares left | collisions | dead codes |\n|---|---|---|---|---|---|---|"
    )
    for name, rows in (
        ("ours, codebooks by loss", ours("loss", "principal", *short)),
        ("ours, moving averages", ours("ema", "principal", *short)),
        ("ours, random first weights", ours("loss", "random", *plan)),
        ("vector-quantize-pytorch", others(Peer(), *plan)),
        ("plain loop", others(Broadcast(), *plan)),
    ):
        for step, seconds, left, same, dead in rows:
            print(
                f"| {name} | {step} | {seconds:.1f} | {1000 * seconds / step:.0f} | {left:.4f} | {same} | {dead} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
