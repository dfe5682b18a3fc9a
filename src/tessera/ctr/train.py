"""Train one click-through model: samples and the catalogue in; weights, their description and the curve out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tessera.artifacts.files import file_digest
from tessera.artifacts.logs import log
from tessera.artifacts.models import write_model
from tessera.content.fields import content_files
from tessera.ctr.batch import Batch
from tessera.ctr.data import Longs, SampleSet, load_catalogue, load_samples
from tessera.ctr.shares import Shares, share
from tessera.ctr.task import BatchOf, build
from tessera.evaluation.clicks import summarize
from tessera.settings.ctr import CTRRun, CTRTraining
from tessera.training.engine import Engine
from tessera.training.history import write_history
from tessera.training.launch import one_of_processes, run_processes
from tessera.training.losses import Losses, Term, reported
from tessera.training.machine import Machine, seed_step, state_identity
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

_POOL = 32
"""Batches whose samples are sorted by history length together: less padding, the order still shuffled."""

SAMPLE_FILES = ("samples.parquet", "catalogue.parquet", "offsets.npy", "items.npy", "times.npy")


def plan(lengths: Longs, batch: int, seed: int, epoch: int) -> list[Longs]:
    """Places in `lengths` of each batch of an epoch: shuffled, sorted by length within pools, batches shuffled."""
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    batches: list[Longs] = []
    for start in range(0, len(order), _POOL * batch):
        pool = order[start : start + _POOL * batch]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[begin : begin + batch] for begin in range(0, len(pool), batch)]
    generator.shuffle(batches)
    return batches


def most_events(model: nn.Module, run: CTRRun) -> int | None:
    """How many of the latest events a model is given; None gives all."""
    limits = [limit for limit in (getattr(model, "max_history", None), run.max_history) if limit is not None]
    return min(limits, default=None)


def train_model(
    run: CTRRun,
    folder: Path,
    codes: Path | None,
    output: Path,
    state: Path,
    code: str = "",
    content: Path | None = None,
) -> None:
    """Train a run and write `output` (model.safetensors), model.json and history.jsonl beside it.

    Args:
        run: the resolved run.
        folder: the samples.
        codes: semantic IDs (Parquet), if the run reads them.
        output: path of the weights.
        state: root of the trainers' resumable states.
        code: fingerprint of the code that trains.
        content: folder of texts and pictures, if the run reads them.
    Raises:
        ValueError: training cannot go on, or files do not fit one another.
    """
    samples, catalogue = load_samples(folder), load_catalogue(folder, codes, content)
    seed_step(run.seed)
    model = build(run.model, catalogue)
    training = samples.of("train")
    per_epoch = -(-len(training) // run.training.batch)
    machine = Machine(run.training)
    shares = share(model, machine)
    folder_of_state = state / state_identity(run.canonical(), code, *_digests(folder, codes, content))
    place: Any = getattr(model, "place", None)
    if place is not None:
        place(folder_of_state)
    model.to(machine.device).train()
    most = most_events(model, run)
    batch_of = _batches(run, samples, training, most, machine)
    program = _program(model, shares, run.training, per_epoch, batch_of)
    steps = sum(phase.until.count for phase in program if isinstance(phase.until, FixedSteps))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info(
        "%s seed %d: %s parameters, %s samples (%.1f %% clicked), %d steps, on %s",
        run.name, run.seed, f"{parameters:,}", f"{len(training):,}", 100 * samples.labels[training].mean(),
        steps, machine.device,
    )  # fmt: skip
    engine = Engine(model, program, run.training, run.seed, folder_of_state, machine, run.name)
    history = engine.fit()
    finish: Any = getattr(model, "finish", None)
    if finish is not None:
        finish()
    if not machine.first:
        return
    validation = _validate(model, samples, most, run.training.batch, machine.device)
    log.info("%s: validation %s", run.name, ", ".join(f"{k} {v:.4f}" for k, v in validation.items() if v is not None))
    about: Any = getattr(model, "about", None)
    description = {
        "run": run.model_dump(mode="json"), "items": catalogue.items, "users": catalogue.users,
        "parameters": parameters, "steps": steps, "validation": validation,
        "seconds": sum({row.get("phase"): row["seconds"] for row in history}.values()),  # each phase has its own clock
        **(about() if about is not None else {}),
    }  # fmt: skip
    write_history(output.with_name("history.jsonl"), history)
    write_model(output, {name: t.contiguous() for name, t in model.state_dict().items()}, description)
    engine.clear()


def _batches(run: CTRRun, samples: SampleSet, training: Longs, most: int | None, machine: Machine) -> BatchOf:
    """This process's share of the batch of each step, planned an epoch at a time."""
    lengths = samples.lengths[training] if most is None else np.minimum(samples.lengths[training], most)
    per_epoch = -(-len(training) // run.training.batch)
    planned: dict[int, list[Longs]] = {}

    def batch_of(step: int) -> Batch:
        epoch, number = divmod(step, per_epoch)
        if epoch not in planned:
            planned.clear()
            planned[epoch] = plan(lengths, run.training.batch, run.seed, epoch)
        mine = planned[epoch][number][machine.rank :: machine.world]
        return samples.batch(training[mine], most).to(machine.device)

    return batch_of


def _digests(folder: Path, codes: Path | None, content: Path | None) -> list[str]:
    """Of all files that training reads."""
    files = [folder / name for name in SAMPLE_FILES]
    files += [codes, codes.with_name("model.safetensors")] if codes is not None else []
    files += content_files(content) if content is not None else []
    return [file_digest(file) for file in files]


def _program(model: nn.Module, shares: Shares, training: CTRTraining, per_epoch: int, batch_of: BatchOf) -> list[Phase]:
    """The phases of the model; without any one of all steps, with one optimiser."""
    own: Any = getattr(model, "program", None)
    if own is not None:
        phases: list[Phase] = own(training, per_epoch, batch_of)
        return phases

    def updates(_: None, at: Position) -> Iterator[Update]:
        yield Update(lambda: _losses(model, batch_of(at.step), shares))

    return [Phase(updates, FixedSteps(per_epoch * training.epochs), {"model": Optimizer(training)})]


def _losses(model: nn.Module, batch: Batch, shares: Shares) -> Losses:
    """Mean cross-entropy over the rows of all processes, and what the model adds to it."""
    loss = shares.mean(binary_cross_entropy_with_logits(model(batch), batch.labels), len(batch))
    auxiliary = getattr(model, "auxiliary", None)
    if auxiliary is None:
        return {"loss": Term(loss), "cross-entropy": reported(loss)}
    return {"cross-entropy": Term(loss), "auxiliary": Term(shares.mean(auxiliary(batch), len(batch)))}


@torch.no_grad()
def predict(
    model: nn.Module, samples: SampleSet, numbers: Longs, most: int | None, batch: int, device: torch.device
) -> np.ndarray:
    """(n,) float32 click probabilities of some samples.

    Raises:
        ValueError: a probability is NaN.
    """
    model.eval()
    probabilities = np.empty(len(numbers), np.float32)
    order = np.argsort(samples.lengths[numbers], kind="stable")
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        logits = model(samples.batch(numbers[chosen], most).to(device))
        probabilities[chosen] = torch.sigmoid(logits.float()).cpu().numpy()
    bad = np.flatnonzero(np.isnan(probabilities))
    if len(bad):
        raise ValueError(f"the model predicts NaN for sample {numbers[bad[0]]}, and {len(bad) - 1} more")
    return probabilities


def _validate(
    model: nn.Module, samples: SampleSet, most: int | None, batch: int, device: torch.device
) -> dict[str, Any]:
    valid = samples.of("valid")
    probabilities = predict(model, samples, valid, most, batch, device)
    return summarize(samples.users[valid], samples.labels[valid], probabilities, bins=15)


def launch(
    run: CTRRun,
    folder: Path,
    codes: Path | None,
    output: Path,
    state: Path,
    code: str,
    logfile: Path | None,
    content: Path | None = None,
) -> None:
    """`train_model` in this process, or in as many as `training.processes` says (one a GPU).

    Raises:
        ValueError: training cannot go on, or files do not fit one another.
        ChildProcessError: a process of several failed; its log says why.
    """
    if run.training.processes == 1:
        train_model(run, folder, codes, output, state, code, content)
        return
    job = {
        "run": run.model_dump(mode="json"), "folder": str(folder), "codes": str(codes) if codes else None,
        "output": str(output), "state": str(state), "code": code, "log": str(logfile) if logfile else None,
        "threads": torch.get_num_threads(), "content": str(content) if content else None,
    }  # fmt: skip
    run_processes("tessera.ctr.train", job, run.training.processes)


def main() -> None:
    """One of several processes, started by `launch`."""
    with one_of_processes() as job:
        train_model(
            CTRRun.model_validate(job["run"]), Path(job["folder"]), Path(job["codes"]) if job["codes"] else None,
            Path(job["output"]), Path(job["state"]), job["code"], Path(job["content"]) if job["content"] else None,
        )  # fmt: skip


if __name__ == "__main__":
    main()
