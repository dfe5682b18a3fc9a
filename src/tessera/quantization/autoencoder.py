"""Autoencoders around residual codebooks, and their training: what RQ-VAE and the multimodal RQ-VAE share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.artifacts.logs import log
from tessera.quantization.base import CHUNK, Fitted, PartQuantizer, stored_codebooks
from tessera.quantization.principal import start_at_components
from tessera.quantization.residual import Quantized, ResidualCodebooks, forget
from tessera.quantization.vectors import PartVectors, Standard, standard
from tessera.settings.quantizers.learned_base import LearnedCodes
from tessera.training.engine import Engine
from tessera.training.losses import Losses
from tessera.training.machine import Machine, seed_step
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between; weights Xavier normal, biases zero (MME-SID)."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    """Encoder, residual codebooks and decoder of one part."""

    def __init__(self, width: int, settings: LearnedCodes) -> None:
        """
        Args:
            width: of the standardised table.
            settings: widths and codebooks.
        """
        super().__init__()
        widths = [width, *settings.hidden, settings.dim]
        self.encoder = perceptron(widths)
        self.codebooks = ResidualCodebooks(settings)
        self.decoder = perceptron(widths[::-1])

    def forward(self, x: Tensor) -> tuple[Tensor, Quantized]:
        """(n, width) -> (n, width) reconstructions, and the codes between."""
        latent = self.encoder(x)
        with torch.autocast(x.device.type, enabled=False):  # distances need their digits
            quantized: Quantized = self.codebooks(latent.float())
        return self.decoder(quantized.vectors), quantized


class Part(PartQuantizer):
    """A trained autoencoder."""

    def __init__(self, scaling: Standard, codebooks: Sequence[Tensor], encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(scaling, codebooks)
        self.encoder, self.decoder = encoder.eval(), decoder.eval()

    def encode(self, vectors: Tensor) -> Tensor:
        """(n, dim) of the table -> (n, width) latent vectors."""
        latent: Tensor = self.encoder(self.scaling.apply(vectors))
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """(n, width) latent vectors -> (n, dim) of the table."""
        return self.scaling.undo(self.decoder(latent))

    def tensors(self) -> dict[str, Tensor]:
        """Everything under its name."""
        tensors = super().tensors()
        for name, module in (("encoder", self.encoder), ("decoder", self.decoder)):
            tensors |= {f"{name}.{key}": value.detach() for key, value in module.state_dict().items()}
        return tensors

    @classmethod
    def from_tensors(cls, settings: LearnedCodes, tensors: Mapping[str, Tensor]) -> Part:
        """The inverse of `tensors`."""
        widths = [len(tensors["mean"]), *settings.hidden, settings.dim]
        modules = []
        for name, layers in (("encoder", widths), ("decoder", widths[::-1])):
            module = perceptron(layers)
            module.load_state_dict(
                {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            )
            modules.append(module)
        return cls(Standard(tensors["mean"], tensors["scale"]), stored_codebooks(tensors), *modules)


@dataclass
class Passed:
    """A part's rows of a batch, through its autoencoder."""

    x: Tensor
    """(n, width) standardised rows."""
    made: Tensor
    """(n, width) reconstructions."""
    quantized: Quantized
    rows: Tensor
    """(n,) their places in the batch."""

    @torch.no_grad()
    def cosine(self) -> Tensor | float:
        """Mean cosine of a row and its own reconstruction: near zero when rows decode to anyone's."""
        return F.cosine_similarity(self.made.float(), self.x, dim=1).mean() if len(self.x) else 0.0


PartLosses = Callable[[list[Passed]], Losses]
"""The losses of a batch, of which each part has passed its rows."""


class Batches:
    """Rows of every step: the whole catalogue where it fits, otherwise permutations cut into full batches."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed = count, min(batch, count), seed
        self.each = count // self.batch
        self.epoch, self.order = -1, np.arange(count)

    def rows(self, step: int) -> np.ndarray:
        """(batch,) rows of a step."""
        if self.each == 1 and self.batch == self.count:
            return self.order
        epoch, place = divmod(step, self.each)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return self.order[place * self.batch : (place + 1) * self.batch]


def fit_autoencoders(settings: LearnedCodes, data: Sequence[PartVectors], state: Path, losses: PartLosses) -> Fitted:
    """Train an autoencoder a part, all in one step.

    Args:
        settings: widths, codebooks and training.
        data: the parts; the same items in all, absent where a part has no row of one.
        state: folder of the checkpoint; a run that was killed goes on from it to the same numbers.
        losses: the loss of a batch.
    Raises:
        TrainingError: the loss became NaN or infinite.
    """
    machine = Machine(settings.training)
    tables = [torch.from_numpy(part.vectors) for part in data]
    present = torch.from_numpy(np.stack([part.present for part in data]))
    scalings = [standard(table[own], part.widths) for table, own, part in zip(tables, present, data, strict=True)]
    inputs = [scaling.apply(table).to(machine.device) for scaling, table in zip(scalings, tables, strict=True)]
    seed_step(settings.training.seed, 0)
    model = nn.ModuleList(Autoencoder(table.shape[1], settings) for table in tables).to(machine.device).train()
    parts: list[Autoencoder] = list(model)  # type: ignore[arg-type]
    batches = Batches(len(tables[0]), settings.training.batch, settings.training.seed)

    def updates(_: None, at: Position) -> Iterator[Update]:
        rows = torch.from_numpy(batches.rows(at.step))
        yield Update(lambda: step_losses(rows, at.optimizers["model"]))

    def step_losses(rows: Tensor, optimizer: torch.optim.Optimizer) -> Losses:
        passed = []
        for part, table, own in zip(parts, inputs, present, strict=True):
            indices = torch.nonzero(own[rows])[:, 0]
            x = table[rows[indices].to(machine.device)]
            made, quantized = part(x)
            passed.append(Passed(x, made, quantized, indices.to(machine.device)))
            forget(optimizer, part.codebooks.moved)
        return losses(passed)

    def begin() -> None:
        owned = [table[own.to(machine.device)] for table, own in zip(inputs, present, strict=True)]
        if settings.first_weights == "principal":
            for part, rows in zip(parts, owned, strict=True):
                count = start_at_components(part.encoder, part.decoder, rows)
                log.info("encoder and decoder start from %d principal components", count)
        if settings.start == "kmeans":
            with torch.no_grad():
                for part, rows in zip(parts, owned, strict=True):
                    part.codebooks.start(torch.cat([part.encoder(chunk) for chunk in torch.split(rows, CHUNK)]))
                    log.info("codebooks start from k-means of %d latent vectors", len(rows))

    training = settings.training
    program = [Phase(updates, FixedSteps(training.steps), {"model": Optimizer(training)}, begin=begin)]
    engine = Engine(model, program, training, training.seed, state, machine, "codes")
    history = engine.fit()
    model.cpu()
    fitted = [
        Part(scaling, part.codebooks.codebooks, part.encoder, part.decoder)
        for scaling, part in zip(scalings, parts, strict=True)
    ]
    return Fitted(list(fitted), history, engine.clear)
