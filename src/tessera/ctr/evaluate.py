"""Judge one click-through model on the test samples: accuracy by groups, calibration, recall of retrieval, latency."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from tessera.artifacts.files import file_digest, write_json
from tessera.artifacts.logs import log
from tessera.artifacts.models import read_model
from tessera.artifacts.tables import ArtifactError, write_table
from tessera.ctr.batch import Catalogue
from tessera.ctr.data import Longs, SampleSet, load_catalogue, load_samples
from tessera.ctr.task import build
from tessera.ctr.train import most_events, predict
from tessera.evaluation import clicks
from tessera.evaluation.calibration import calibrated
from tessera.evaluation.groups import history_groups, item_groups
from tessera.settings.ctr import CTREvaluation, CTRRun
from tessera.settings.evaluation import Evaluation
from tessera.training.machine import pick_device


def load_model(path: Path, run: CTRRun, catalogue: Catalogue, device: torch.device) -> nn.Module:
    """A trained model, ready to predict.

    Raises:
        ArtifactError: the weights belong to another catalogue or another model.
    """
    tensors, description = read_model(path)
    if description["items"] != catalogue.items:
        raise ArtifactError(f"{path}: trained on {description['items']} items, the samples have {catalogue.items}")
    model = build(run.model, catalogue)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: does not hold the weights of {run.name!r} ({error})") from None
    return model.to(device).eval()


def evaluate_model(
    run: CTRRun,
    settings: CTREvaluation,
    path: Path,
    folder: Path,
    codes: Path | None,
    output: Path,
    summary_path: Path,
    reference: tuple[CTRRun, Path] | None = None,
    content: Path | None = None,
) -> dict[str, Any]:
    """Predict every test sample; write the predictions and the metrics, and give the metrics back.

    Args:
        run: the resolved run.
        settings: groups, bins, requests.
        path: its weights.
        folder: the samples.
        codes: semantic IDs, if the config names some.
        output: the predictions (Parquet).
        summary_path: the metrics (JSON).
        reference: a model of full target attention and its weights, to which retrieval is compared.
        content: folder of texts and pictures, if the run reads them.
    """
    samples = load_samples(folder)
    reads_codes = run.semantic_ids or (reference is not None and reference[0].semantic_ids)
    catalogue = load_catalogue(folder, codes if reads_codes else None, content)
    device = pick_device(run.training.device)
    model = load_model(path, run, catalogue, device)
    test = samples.of("test")
    most = most_events(model, run)
    started = time.monotonic()
    probabilities = predict(model, samples, test, most, settings.batch, device)
    seconds = time.monotonic() - started
    more: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "samples_per_second": round(len(test) / max(seconds, 1e-9), 1),
    }
    if settings.requests and hasattr(model, "request"):
        more["latency"] = measure_latency(model, samples, test, catalogue, settings, most, device)
    if settings.recall_samples and reference is not None and hasattr(model, "selected"):
        more["retrieval"] = _recall(model, reference, samples, catalogue, settings, most, device)
    valid = samples.of("valid")
    seen = predict(model, samples, valid, most, settings.batch, device)
    fitted_on, judged_on = (samples.labels[valid], seen), (samples.labels[test], probabilities)
    more["calibrated"] = calibrated(fitted_on, judged_on, settings.calibration_bins)
    inputs = {"model": file_digest(path), "samples": file_digest(folder / "samples.parquet")}
    write_predictions(output, samples, test, probabilities, run.model_dump(mode="json"), inputs)
    summary = judge(samples, test, probabilities, catalogue, settings)
    summary |= {"model": run.name, "seed": run.seed, "kind": run.model.model, "remarks": run.remarks, **more}
    write_json(summary_path, summary)
    log.info("%s: %s", run.name, ", ".join(f"{k} {v:.4f}" for k, v in summary["metrics"].items() if v is not None))
    return summary


def write_predictions(
    path: Path, samples: SampleSet, numbers: Longs, probabilities: np.ndarray, made_by: Mapping[str, Any], inputs: Any
) -> None:
    """The predictions artifact: a row a sample, in the order of the samples."""
    columns = {
        "user": samples.users[numbers],
        "item": samples.targets[numbers],
        "label": samples.labels[numbers].astype(np.int8),
        "history_length": samples.lengths[numbers],
        "probability": probabilities,
    }
    write_table(path, pa.table(columns), "ctr_predictions", made_by, inputs)


def judge(
    samples: SampleSet, numbers: Longs, probabilities: np.ndarray, catalogue: Catalogue, settings: CTREvaluation
) -> dict[str, Any]:
    """Metrics of predictions: overall, by popularity of the item and by length of the history."""
    users, labels, targets = samples.users[numbers], samples.labels[numbers], samples.targets[numbers]
    groups: dict[str, dict[str, Any]] = {"popularity": {}, "history": {}}
    as_ranked = Evaluation(head_share=settings.head_share, history_bins=settings.history_bins)
    by_events = item_groups(catalogue.popularity.numpy(), as_ranked)["popularity"]
    named = {name: members[targets] for name, members in by_events.items()}
    named["unknown"] = ~catalogue.known.numpy()[targets]  # of the tail, too
    lengths = samples.lengths[numbers]
    by_length = {"empty": lengths == 0, **history_groups(lengths, as_ranked)}
    for kind, members in (("popularity", named), ("history", by_length)):
        for name, mine in members.items():
            if mine.any():
                values = clicks.summarize(users[mine], labels[mine], probabilities[mine], settings.calibration_bins)
                groups[kind][name] = {"samples": int(mine.sum()), "metrics": values}
    return {
        "samples": len(numbers),
        "users": len(np.unique(users)),
        "clicks": float(labels.mean()),
        "metrics": clicks.summarize(users, labels, probabilities, settings.calibration_bins),
        "calibration": clicks.calibration(labels, probabilities, settings.calibration_bins),
        "groups": groups,
    }


@torch.no_grad()
def measure_latency(
    model: nn.Module,
    samples: SampleSet,
    test: Longs,
    catalogue: Catalogue,
    settings: CTREvaluation,
    most: int | None,
    device: torch.device,
) -> dict[str, float]:
    """Milliseconds of a request of one user and several candidates, over the users with the longest histories."""
    longest = test[np.argsort(-samples.lengths[test], kind="stable")]
    _, first = np.unique(samples.users[longest], return_index=True)
    chosen = longest[np.sort(first)][: settings.requests]
    generator = np.random.default_rng(settings.seed)
    milliseconds = []
    for turn, number in enumerate([chosen[0], *chosen]):  # the first one warms up and is not counted
        batch = samples.batch(np.array([number]), most)
        candidates = torch.from_numpy(generator.integers(1, catalogue.items + 1, settings.candidates))
        length = int(batch.lengths[0])
        inputs = [t.to(device) for t in (batch.histories[0, :length], batch.ages[0, :length], candidates)]
        started = time.perf_counter()
        logits = model.request(*inputs)  # type: ignore[operator]
        logits.cpu()
        if turn:
            milliseconds.append(1000 * (time.perf_counter() - started))
    return {
        "requests": len(milliseconds),
        "candidates": settings.candidates,
        "mean_history": float(samples.lengths[chosen].mean()),
        "p50_ms": round(float(np.quantile(milliseconds, 0.5)), 3),
        "p99_ms": round(float(np.quantile(milliseconds, 0.99)), 3),
    }


def among_heaviest(heavy: Tensor, chosen: Tensor) -> Tensor:
    """(rows, length) bool: of n chosen events those that weigh as much as the n-th heaviest, or more.

    An item that comes again weighs the same again: which of equals is chosen is the same to it.

    Args:
        heavy: (rows, length) weights; where there is no event, less than any has.
        chosen: (rows, length) bool, events alone.
    """
    if not heavy.shape[1]:
        return chosen
    last = (chosen.sum(1) - 1).clamp(min=0)
    least = heavy.sort(1, descending=True).values.gather(1, last[:, None])
    return chosen & (heavy >= least)


@torch.no_grad()
def _recall(
    model: nn.Module,
    reference: tuple[CTRRun, Path],
    samples: SampleSet,
    catalogue: Catalogue,
    settings: CTREvaluation,
    most: int | None,
    device: torch.device,
) -> dict[str, float | None]:
    """How much of what full target attention looks at most is handed on by retrieval; None where nothing is selected.

    For each impression of which n events are selected: the share of the n events that weigh most in the reference (any
    of equal weight) that are among them, and the share of the reference's whole (absolute) weight that falls on them.
    """
    run, path = reference
    looking = load_model(path, run, catalogue, device)
    if not hasattr(looking, "attention"):
        raise ValueError(f"ctr.reference: {run.name!r} is a {run.model.model}, which has no attention over histories")
    test = samples.of("test")
    generator = np.random.default_rng(settings.seed)
    some = np.sort(generator.choice(test, min(settings.recall_samples, len(test)), replace=False))
    hits, wanted, weight, total = 0.0, 0.0, 0.0, 0.0
    for start in range(0, len(some), 64):
        batch = samples.batch(some[start : start + 64], most).to(device)
        real = torch.arange(batch.histories.shape[1], device=device) < batch.lengths[:, None]
        chosen = model.selected(batch) & real  # type: ignore[operator]
        heavy = torch.where(real, looking.attention(batch).abs(), -1.0)  # type: ignore[operator]
        counts = chosen.sum(1)
        hits += float(among_heaviest(heavy, chosen).sum())
        wanted += float(counts.sum())
        mass = torch.where(real, heavy, 0.0)
        share = (mass * chosen).sum(1) / mass.sum(1).clamp(min=1e-12)
        weight += float(share[counts > 0].sum())
        total += float((counts > 0).sum())
    return {
        "samples": len(some),
        "selected": wanted / max(1, len(some)),
        "recall": hits / wanted if wanted else None,
        "weight": weight / total if total else None,
    }
