"""Train one run: settings and a prepared dataset in; weights, their description and the training curve out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tessera.artifacts.files import file_digest, read_json
from tessera.artifacts.logs import log
from tessera.artifacts.models import write_model
from tessera.artifacts.run_folder import DESCRIPTION
from tessera.data.dataset import Cases, Dataset, load_dataset, read_raw_ids
from tessera.evaluation.groups import repeat_warning
from tessera.evaluation.judge import counted_cases, users_at_once, validation_metrics
from tessera.evaluation.ranking import ScoreError
from tessera.language.models import fingerprint
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Recommender, as_scorer, fixed, recommender, training_histories
from tessera.recommenders.warm_start import Begin, begin, latest, trained_on
from tessera.settings.changes import as_trained
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run
from tessera.training.checkpoint import clear
from tessera.training.engine import Engine
from tessera.training.errors import TrainingError
from tessera.training.history import write_history
from tessera.training.launch import one_of_processes, run_processes
from tessera.training.machine import Machine, seed_step, state_identity
from tessera.training.phases import Epochs, Phase


def run_identity(
    run: Run, data: Path, inputs: RunInputs, code: str, validated: Mapping[str, float] | None = None
) -> str:
    """Name of a run's state: changes with its settings, its code and its input files, and with nothing else.

    `validated` is how long each phase lasts, and what else was chosen on validation, where another run tells.
    """
    digests = [] if validated is None else [json.dumps(validated, sort_keys=True)]
    digests = [*digests, file_digest(data / "interactions.parquet"), *inputs.digests(), *fingerprint(run.model)]
    return state_identity(run.canonical(), code, *digests)


def needed_epochs(validated: Path) -> dict[str, int]:
    """After how many epochs a run that was validated was best, by phase; "" is a program's last phase of epochs.

    Args:
        validated: its model.json.
    Raises:
        ValueError: it does not say.
    """
    described = read_json(validated)
    best: dict[str, Any] = described.get("best_epochs", {}) | {"": described.get("best_epoch")}
    if not all(isinstance(count, int) for count in best.values()):
        raise ValueError(f"{validated}: does not say after how many epochs the run was best; train that run again")
    return best


def as_long_as(program: Sequence[Phase], best: Mapping[str, int]) -> list[Phase]:
    """A program whose phases of epochs are as long as `needed_epochs` says; of those that may have none, it need not.

    Raises:
        ValueError: it does not say of a phase.
    """
    epochs = [phase for phase in program if isinstance(phase.until, Epochs) and phase.until.most]
    best = {**({epochs[-1].name: best[""]} if epochs else {}), **best}
    if missing := [phase.name for phase in epochs if phase.name not in best]:
        raise ValueError(
            f"the run that was validated does not say after how many epochs it was best in {missing[0]!r}; "
            "train that run again"
        )
    return [
        replace(phase, until=_ended(phase.until, best.get(phase.name, 0))) if isinstance(phase.until, Epochs) else phase
        for phase in program
    ]


def _ended(until: Epochs, most: int) -> Epochs:
    """So many epochs, at the rates that they have within the longest course: those that the validated run had."""
    return replace(until, most=most, course=until.most)


def best_epochs(history: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The row of the curve whose weights a phase of epochs ended with, by the phase's name ("" where there is one)."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in history:
        if "epoch" not in row:
            continue
        before = best.get(row.get("phase", ""))
        # of a phase that does not validate, the last epoch
        if before is None or "NDCG@10" not in before or row.get("NDCG@10", -math.inf) > before["NDCG@10"]:
            best[row.get("phase", "")] = row
    return best


def train_run(
    run: Run,
    data: Path,
    inputs: RunInputs,
    output: Path,
    state: Path,
    code: str = "",
    validated: Path | None = None,
) -> None:
    """Train a run and write `output` (model.safetensors), model.json and history.jsonl beside it.

    Args:
        run: the resolved run.
        data: folder of the prepared dataset.
        inputs: the other files that the run reads.
        output: path of the weights.
        state: root of the trainers' resumable states.
        code: fingerprint of the code that trains.
        validated: model.json of the same run on data that could be validated, which says how many epochs are trained
            here, exactly, and what else was chosen there; None stops by the validation cases of `data`.
    Raises:
        ValueError: a file that the run reads was not given.
    """
    dataset = load_dataset(data)
    run, remarks = _of_members(run, inputs)
    read = {name: file_digest(file) for name, file in inputs.read_again().items()}
    raw_ids = read_raw_ids(data, "items")
    description: dict[str, Any] = {
        "run": run.model_dump(mode="json"), "items": dataset.n_items, "users": dataset.n_users, "inputs": read,
        "trained_on": trained_on(data, dataset, raw_ids), **({"remarks": remarks} if remarks else {}),
    }  # fmt: skip
    if run.heuristic:
        tensors = fixed(run).make(run, dataset, data, inputs.under(run), output.parent)
        write_history(output.with_name("history.jsonl"), [])
        write_model(output, tensors, description)
        return
    align = getattr(getattr(run.method, "items", None), "align", None)
    if align is not None and inputs.teacher is None:
        raise ValueError(
            f"system {run.system!r} is aligned with {align.system}/{align.backbone}, but its weights were not given"
        )
    warm = begin(run, inputs, data, dataset, raw_ids)
    if warm is not None:
        description |= {"warm_start": warm.described(), "remarks": warm.remarks}
        description["trained_on"]["last"] = latest(description["trained_on"]["last"], warm.start)
    needed = None if validated is None else needed_epochs(validated)
    selected = {} if validated is None else read_json(validated).get("selected", {})
    folder = state / run_identity(run, data, inputs, code, None if needed is None else {**needed, **selected})
    machine = Machine(run.training)
    history, model = _train_network(run, dataset, inputs, folder, machine, needed, warm, selected)
    if not machine.first:
        return
    description |= _outcome(model, history)
    write_history(output.with_name("history.jsonl"), history)
    write_model(output, model.state_dict(), description)
    clear(folder / "checkpoint.safetensors")
    _tell_end(run, description, validated)


def _outcome(model: Recommender, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How training went: its epochs, the best of them, and what was chosen on validation besides the weights."""
    phases = best_epochs(history)
    best = list(phases.values())[-1] if phases else {"epoch": 0}
    epochs = sum(row.get("epoch", 0) > 0 for row in history)
    outcome = {"best_epoch": best["epoch"], "epochs": epochs, "validation": best.get("NDCG@10")}
    if len(phases) > 1:
        outcome["best_epochs"] = {name: row["epoch"] for name, row in phases.items()}
    return outcome | ({"selected": model.selected()} if model.selected() else {})


def _tell_end(run: Run, outcome: Mapping[str, Any], validated: Path | None) -> None:
    epochs, value = outcome["epochs"], outcome["validation"]
    if validated is None and value is not None:
        log.info("best epoch %d of %d, validation NDCG@10 %.4f", outcome["best_epoch"], epochs, value)
    elif run.members:
        log.info("nothing is trained: its members are")
    elif not epochs:
        log.warning("%s/%s: no epoch is trained%s", run.system, run.recommender,
                    f", for none made the run of {validated} better" if validated else "")  # fmt: skip
    else:
        log.info("trained on everything for %d epochs, as many as %s needed", epochs, validated)


def _of_members(run: Run, inputs: RunInputs) -> tuple[Run, list[str]]:
    """A run whose members, if it has any, are as they were trained, and what their trainings said of themselves.

    Raises:
        ValueError: their weights were not given.
    """
    if len(run.members) != len(inputs.members):
        given = len(inputs.members)
        raise ValueError(f"system {run.system!r} is made of {len(run.members)} runs, but weights of {given} were given")
    described = [read_json(Path(weights).with_name(DESCRIPTION)) for weights in inputs.members]
    remarks = [
        f"{member.row}: {remark}"
        for member, its in zip(run.members, described, strict=True) for remark in its.get("remarks", [])
    ]  # fmt: skip
    members = [as_trained(member, its["run"]) for member, its in zip(run.members, described, strict=True)]
    return run.model_copy(update={"members": members}), remarks


def _train_network(
    run: Run,
    dataset: Dataset,
    inputs: RunInputs,
    folder: Path,
    machine: Machine,
    needed: Mapping[str, int] | None,
    warm: Begin | None = None,
    selected: Mapping[str, float] | None = None,
) -> tuple[list[dict[str, Any]], Recommender]:
    seed_step(run.seed)
    model = recommender(run).build(run, inputs.under(run), dataset.train_counts)
    if warm is not None:
        warm.into(model)
    if selected:
        model.select(selected)
    cases, items = dataset.cases("valid", model.reads_times), len(dataset.train_counts) - 1
    judged = validation_settings(run, items)
    if needed is None:
        cases = validation_cases(run, cases, judged)

    def validate() -> dict[str, float]:
        try:
            return validation_metrics(as_scorer(model, machine.device), cases, judged, items)
        except ScoreError as error:  # the loss before the last step was finite still
            raise TrainingError(
                f"{run.row}: {error}: the weights are no numbers after the last step; lower training.learning_rate or "
                "training.gradient_clip"
            ) from None

    histories = training_histories(dataset, model.reads_times)
    program = model.program(run, histories, validate if needed is None else None)
    if needed is not None:
        program = as_long_as(program, needed)
    learned = " and ".join(f"{phase.batches.targets:,}" for phase in program if phase.batches is not None)
    log.info(
        "%s/%s seed %d: %s parameters, %s targets, %s validation users, on %s",
        run.system, run.recommender, run.seed, f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}",
        learned or "no",
        f"{len(cases):,}", machine.device,
    )  # fmt: skip
    engine = Engine(model, program, run.training, run.seed, folder, machine, f"{run.system}/{run.recommender}")
    return engine.fit(), model


def validation_settings(run: Run, items: int) -> Evaluation:
    """How validation cases are judged over a catalogue of so many items: masks and repeats as the test has them."""
    return Evaluation(batch_users=users_at_once(items), mask_seen=run.mask_seen, repeat_targets=run.repeat_targets)


def validation_cases(run: Run, cases: Cases, judged: Evaluation) -> Cases:
    """The cases that decide when to stop: the same for every run.

    Raises:
        ValueError: no case is left.
    """
    if not len(cases):
        raise ValueError(f"{run.system}: the dataset has no validation case, so nothing can decide when to stop")
    counted = counted_cases(cases, judged)
    if not len(counted):
        raise ValueError(
            f"{run.system}: the validation target of every user stands in the user's own history, and "
            "evaluation.repeat_targets: drop leaves all of them out, so nothing can decide when to stop; "
            "set evaluation.mask_seen: false"
        )
    if warning := repeat_warning(int(cases.repeats.sum()), len(cases), judged, "validation users"):
        log.warning("%s/%s: %s", run.system, run.recommender, warning)
    return _sample(counted, run.training.validation_users)


def _sample(cases: Cases, users: int | None) -> Cases:
    """The same random users for every run, so that early stopping sees the same."""
    if users is None or users >= len(cases):
        return cases
    return cases.take(np.sort(np.random.default_rng(0).choice(len(cases), users, replace=False)))


def launch(
    run: Run,
    data: Path,
    inputs: RunInputs,
    output: Path,
    state: Path,
    code: str,
    logfile: Path | None,
    validated: Path | None = None,
) -> None:
    """`train_run` in this process, or in as many as `training.processes` says (one a GPU).

    Raises:
        ValueError: a process of several failed; its log says why.
    """
    if run.training.processes == 1:
        train_run(run, data, inputs, output, state, code, validated)
        return
    job = {
        "run": run.model_dump(mode="json"), "data": str(data), "inputs": inputs.model_dump(mode="json"),
        "output": str(output), "state": str(state), "code": code, "log": str(logfile) if logfile else None,
        "threads": torch.get_num_threads(), "validated": str(validated) if validated else None,
    }  # fmt: skip
    run_processes("tessera.recommenders.train", job, run.training.processes)


def main() -> None:
    """One of several processes, started by `launch`."""
    with one_of_processes() as job:
        train_run(
            Run.model_validate(job["run"]), Path(job["data"]), RunInputs.model_validate(job["inputs"]),
            Path(job["output"]), Path(job["state"]), job["code"], Path(job["validated"]) if job["validated"] else None,
        )  # fmt: skip


if __name__ == "__main__":
    main()
