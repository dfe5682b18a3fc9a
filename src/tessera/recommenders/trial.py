"""One trial of a search: a run whose weights are thrown away, and what validation says of it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tessera.artifacts.files import read_json, write_json, write_text
from tessera.artifacts.logs import log
from tessera.data.dataset import load_dataset
from tessera.evaluation.judge import reads_times, validation_metrics
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import launch, run_identity, validation_cases, validation_settings
from tessera.settings.runs import Run
from tessera.training.checkpoint import clear
from tessera.training.errors import TrainingError
from tessera.training.history import write_history


def try_run(
    run: Run, data: Path, inputs: RunInputs, output: Path, state: Path, code: str = "", logfile: Path | None = None
) -> None:
    """Train a run and write `output` (trial.json) and the curve, history.jsonl, beside it. No test target is read.

    A training that cannot go on, because its loss is no number, is a trial that failed, with `validation` null. One
    that ended before the job was killed is not done again. `seconds` are of this job, or of the whole curve where that
    is more: epochs before a kill stand in it.

    Args:
        run: with the values of the trial.
        data: folder of the prepared dataset.
        inputs: the other files that the run reads.
        output: path of trial.json.
        state: root of the trainers' resumable states.
        code: fingerprint of the code that trains.
        logfile: of the job.
    """
    # trials may have the same values, and run beside one another: none shares its state
    state = state / output.parent.name
    weights = state / run_identity(run, data, inputs, code) / "ended" / "model.safetensors"
    description, history = weights.with_suffix(".json"), weights.with_name("history.jsonl")
    started = time.monotonic()
    outcome: dict[str, Any] = {"validation": None, "best_epoch": None, "epochs": None, "failed": None}
    try:
        if not description.is_file():  # it is written last
            launch(run, data, inputs, weights, state, code, logfile)
        ended = read_json(description)
        outcome |= {key: ended.get(key) for key in ("validation", "best_epoch", "epochs")}
        unmeasured = outcome["validation"] is None  # of no epoch
        # what is chosen, or set, after the last epoch counts, too
        if run.heuristic or unmeasured or "selected" in ended or run.method.CHANGES_AT_THE_END:
            outcome["validation"] = _validation(run, data, inputs, weights)
        write_text(output.with_name("history.jsonl"), history.read_text(encoding="utf-8"))
    except TrainingError as error:
        log.warning("this trial failed: %s", error)
        write_history(output.with_name("history.jsonl"), [])
        outcome["failed"] = str(error)
    seconds = max(time.monotonic() - started, _curve_seconds(output.with_name("history.jsonl")))
    write_json(output, {"values": run.chosen, "seed": run.seed, "seconds": round(seconds, 1), **outcome})
    for path in (description, history, weights):
        path.unlink(missing_ok=True)
    clear(weights.parents[1] / "checkpoint.safetensors")  # of a trial that failed, or was killed at its end
    for folder in weights.parents[:4]:  # the root of a trial's states may hold those of other rows
        with suppress(OSError):
            folder.rmdir()


def _curve_seconds(history: Path) -> float:
    """What the rows of a curve took: each epoch with its validation, and each phase of steps, whose clock runs on."""
    rows = [json.loads(row) for row in history.read_text(encoding="utf-8").splitlines()]
    epochs = sum(row.get("seconds", 0.0) + row.get("validation_seconds", 0.0) for row in rows if "epoch" in row)
    return float(epochs + sum({row.get("phase"): row["seconds"] for row in rows if "step" in row}.values()))


def _validation(run: Run, data: Path, inputs: RunInputs, weights: Path) -> float:
    """What decides among systems, of one as it stands when training is over: NDCG@10 of the same validation cases."""
    dataset = load_dataset(data)
    scorer = load_scorer(weights, run, dataset.train_counts, inputs)
    items = len(dataset.train_counts) - 1
    judged = validation_settings(run, items)
    cases = validation_cases(run, dataset.cases("valid", reads_times(scorer)), judged)
    return validation_metrics(scorer, cases, judged, items)["NDCG@10"]
