"""What encoders that learn with a click model cost: a step under each regime, against the length of histories.

Reads what an experiment has made of a dataset (samples and content), as `config/lemur.yaml` does. Each cell is a
process of its own on one thread: the median of its steps after the first, tokens encoded a second, and the largest
memory that the process ever had above what it had before the first step. `recompute` is end to end, with activations
made again.

    ./run --configfile config/lemur.yaml
    python benchmarks/encoders.py results/lemur/lifelong --lengths 50 300 --plot benchmarks/results/encoders.svg
    python benchmarks/encoders.py results/lemur/lifelong --qauc  # of runs that are there
    python benchmarks/encoders.py results/lemur/lifelong --curves bank frozen end_to_end --output /tmp/curves

`--curves` trains models of the config as the workflow does, and beside it takes the GAUC of every second validation
sample each `--every` steps: steps and CPU seconds of training alone, by which regimes are compared at the same GAUC.
The trained model is judged on the test samples as the workflow does; its files are in the folder `--output`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from line_plot import line_plot

REGIMES: dict[str, dict[str, Any]] = {
    "frozen": {"regime": "frozen"},
    "bank": {},
    "bank, p = q = 0.2": {"forwarded": 0.2, "learned": 0.2},
    "end to end": {"regime": "end_to_end"},
    "end to end, recompute": {"regime": "end_to_end", "documents": {"recompute": True, "batch_tokens": 2048}},
}


def measure(folder: Path, config: Path, regime: str, length: int, batch: int, steps: int) -> dict[str, float]:
    """Seconds of a step forward and backward, tokens and memory, of one regime in this process."""
    import torch
    from pydantic import TypeAdapter

    from tessera.ctr.data import load_catalogue, load_samples
    from tessera.ctr.task import build
    from tessera.settings.clicks.base import CTRModel

    torch.set_num_threads(1)
    samples = load_samples(folder / "ctr/samples")
    catalogue = load_catalogue(folder / "ctr/samples", None, folder / "ctr/content")
    given = next(m for m in yaml.safe_load(config.read_text())["ctr"]["models"].values() if m["model"] == "lemur")
    keys = dict(REGIMES[regime])
    keys["documents"] = {**given.get("documents", {}), **keys.get("documents", {})}
    torch.manual_seed(0)
    model: Any = build(TypeAdapter(CTRModel).validate_python({**given, **keys, "long": length}), catalogue).train()
    numbers = np.random.default_rng(0).permutation(samples.of("train"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, tokens = [], []
    for step in range(steps + 1):
        read = samples.batch(np.sort(numbers[step * batch : (step + 1) * batch]), model.max_history)
        started = time.process_time()
        losses = model.losses(read)
        sum(term.value for term in losses.values() if term.trained).backward()
        seconds.append(time.process_time() - started)
        tokens.append(float(losses["tokens"].value) if "tokens" in losses else 0.0)
        model.zero_grad()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step_seconds = statistics.median(seconds[1:])
    read_tokens = statistics.mean(tokens[1:])
    return {"seconds": step_seconds, "tokens": read_tokens, "rate": read_tokens / step_seconds,
            "mib": (after - before) / 1024}  # fmt: skip


def curve(folder: Path, config: Path, name: str, seed: int, every: int, output: Path) -> dict[str, Any]:
    """Train one model of the config; its GAUC on validation over steps and CPU seconds, and its metrics on test."""
    import torch

    from tessera.ctr.data import load_samples
    from tessera.ctr.evaluate import evaluate_model
    from tessera.ctr.train import most_events, predict, train_model
    from tessera.evaluation.clicks import summarize
    from tessera.plan.graph import Plan
    from tessera.settings.config import load
    from tessera.settings.files import experiment_name
    from tessera.training.engine import Engine

    torch.set_num_threads(1)
    settings = load(yaml.safe_load(config.read_text()), str(config), experiment_name([config]))
    run = next(run for run in Plan(settings).click_runs.values() if run.name == name)
    run = run.model_copy(update={"seed": seed})
    samples, content = load_samples(folder / "ctr/samples"), folder / "ctr/content"
    valid = samples.of("valid")[::2]
    points: list[dict[str, float]] = []
    state = {"seconds": 0.0, "steps": 0}
    update = Engine._update

    def watched(engine: Any, *arguments: Any) -> None:
        started = time.process_time()
        update(engine, *arguments)
        state["seconds"] += time.process_time() - started
        state["steps"] += 1
        if engine.phase == len(engine.program) - 1 and (engine.step + 1) % every == 0:
            model: Any = engine.model
            kept = {key: value.clone() for key, value in model.state_dict().items()}
            modes = [(part, part.training) for part in model.modules()]
            if hasattr(model, "finish"):
                model.finish()
            chances = predict(model, samples, valid, most_events(model, run), 256, torch.device("cpu"))
            area = summarize(samples.users[valid], samples.labels[valid], chances, 15)["GAUC"]
            points.append({"step": engine.step + 1, "GAUC": area, **state})
            model.load_state_dict(kept)
            for part, mode in modes:
                part.training = mode

    target = output / "ctr/runs" / name / f"seed-{seed}"
    target.mkdir(parents=True, exist_ok=True)
    Engine._update = watched  # type: ignore[method-assign]
    model = target / "model.safetensors"
    train_model(run, folder / "ctr/samples", None, model, target / "state", content=content)
    assert settings.ctr is not None
    judged = settings.ctr.evaluation.model_copy(update={"requests": 0})
    files = target / "predictions.parquet", target / "metrics.json"
    metrics = evaluate_model(run, judged, model, folder / "ctr/samples", None, *files, content=content)
    about = json.loads((target / "model.json").read_text())
    row = {
        "name": name, "seed": seed, **state, "curve": points, "metrics": metrics["metrics"],
        "intervals": metrics["intervals"], "qauc": qauc(files[0]), "bank": about.get("bank"),
        "validation": about["validation"],
    }  # fmt: skip
    (target / "curve.json").write_text(json.dumps(row, indent=1))
    return row


def qauc(path: Path) -> dict[str, float]:
    """AUC within queries: impressions of a user between two clicks, which have the same history.

    Their plain mean, and the mean weighted by impressions; groups of one class have none.
    """
    import pyarrow.parquet as pq

    from tessera.evaluation.clicks import auc

    table = pq.read_table(path)
    users, lengths, labels, chances = (
        table.column(name).to_numpy() for name in ("user", "history_length", "label", "probability")
    )
    order = np.lexsort((lengths, users))
    changes = np.flatnonzero((np.diff(users[order]) != 0) | (np.diff(lengths[order]) != 0)) + 1
    areas, sizes = [], []
    for group in np.split(order, changes):
        area = auc(labels[group], chances[group])
        if area is not None:
            areas.append(area)
            sizes.append(len(group))
    return {"QAUC": float(np.mean(areas)), "weighted": float(np.average(areas, weights=sizes)), "queries": len(areas)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="results/<experiment>/<dataset>")
    parser.add_argument("--config", type=Path, default=Path("config/lemur.yaml"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--regimes", nargs="+", default=list(REGIMES), choices=list(REGIMES))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--qauc", action="store_true")
    parser.add_argument("--curves", nargs="+", metavar="MODEL", help="models of the config")
    parser.add_argument("--every", type=int, default=26, help="steps between two points of a curve")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder of what --curves trains")
    parser.add_argument("--plot", type=Path, help="the SVG file of seconds a step over lengths")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.qauc:
        for path in sorted(given.folder.glob("ctr/runs/*/seed-*/predictions.parquet")):
            print(path.parent.parent.name, path.parent.name, json.dumps(qauc(path)))
        return
    if given.curves:
        if given.output is None:
            parser.error("--curves writes models: give --output")
        for name in given.curves:
            row = curve(given.folder, given.config, name, given.seed, given.every, given.output)
            print(json.dumps(row), flush=True)
        return
    if given.cell:
        print(json.dumps(measure(given.folder, given.config, given.cell, *given.lengths, given.batch, given.steps)))
        return
    print("| regime | events | tokens a step | CPU s a step | tokens/s | MiB above the start |")
    print("|---|---:|---:|---:|---:|---:|")
    points = []
    for regime in given.regimes:
        for length in given.lengths:
            asked = [str(given.folder), "--config", str(given.config), "--lengths", str(length), "--cell", regime]
            asked += ["--batch", str(given.batch), "--steps", str(given.steps)]
            done = subprocess.run([sys.executable, __file__, *asked], capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            cells = (f"{row['tokens']:,.0f}", f"{row['seconds']:.2f}", f"{row['rate']:,.0f}", f"{row['mib']:,.0f}")
            print(f"| {regime} | {length} | {' | '.join(cells)} |", flush=True)
            points.append({"name": regime, "x": length, "y": row["seconds"]})
    if given.plot:
        about = "Cost of a step by history", "CPU seconds of a training step"
        titles = "events of a history", f"CPU seconds of a step of {given.batch} impressions"
        given.plot.write_text(line_plot(points, given.regimes, titles, about), encoding="utf-8")


if __name__ == "__main__":
    main()
