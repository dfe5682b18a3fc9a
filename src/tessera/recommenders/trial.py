"""One trial of a search: a training whose weights are thrown away, and what validation says of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.logs import log
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import launch
from tessera.settings.runs import Run
from tessera.training.errors import TrainingError
from tessera.training.history import write_history


def try_run(
    run: Run, data: Path, inputs: RunInputs, output: Path, state: Path, code: str = "", logfile: Path | None = None
) -> None:
    """Train a run and write `output` (trial.json) and the curve, history.jsonl, beside it. No test target is read.

    A training that cannot go on, because its loss is no number, is a trial that failed, with `validation` null.

    Args:
        run: with the values of the trial.
        data: folder of the prepared dataset.
        inputs: the other files that the run reads.
        output: path of trial.json.
        state: root of the trainers' resumable states.
        code: fingerprint of the code that trains.
        logfile: of the job.
    """
    weights = output.with_name("model.safetensors")
    started = time.monotonic()
    outcome: dict[str, Any] = {"validation": None, "best_epoch": None, "epochs": None, "failed": None}
    try:
        launch(run, data, inputs, weights, state, code, logfile)
        description = read_json(weights.with_suffix(".json"))
        outcome |= {key: description[key] for key in ("validation", "best_epoch", "epochs")}
    except TrainingError as error:
        log.warning("WARNING: this trial failed: %s", error)
        write_history(output.with_name("history.jsonl"), [])
        outcome["failed"] = str(error)
    finally:
        for path in (weights, weights.with_suffix(".json")):
            path.unlink(missing_ok=True)
    seconds = round(time.monotonic() - started, 1)
    write_json(output, {"values": run.chosen, "seed": run.seed, "seconds": seconds, **outcome})
