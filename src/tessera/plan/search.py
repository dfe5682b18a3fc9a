"""The trials of a search: what each trains, the same whoever asks, and however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, product
from typing import Any

from pydantic import ValidationError

from tessera.plan.graph import Plan
from tessera.settings.base import expectation
from tessera.settings.changes import with_values
from tessera.settings.runs import Run
from tessera.settings.search import LEARNING, Asking, Search, searchable, touches

_MOST_TRIED = 1000
"""Trials whose values are tried on the settings before the run."""


def is_searched(plan: Plan, run: Run) -> bool:
    """Whether the settings of a run are chosen by a search."""
    search = plan.config.search
    if search is None or not searchable(run.method):
        return False
    compared = search.systems if search.systems is not None else plan.config.experiment.systems
    # what others read may be no row of the experiment
    asked = run.system in compared and any(run.row == one.row for one in plan.runs)
    return asked and (not run.heuristic or bool(_paths(search, run)))


def searched(plan: Plan) -> dict[str, Run]:
    """`system/recommender` of everything that is searched, with the run of its first seed."""
    runs: dict[str, Run] = {}
    for run in plan.runs:
        if is_searched(plan, run):
            runs.setdefault(run.row, run)
    return runs


def _paths(search: Search, run: Run) -> list[str]:
    """The paths of the space that a run reads."""
    return [path for path in sorted(search.space) if touches(path, run.system, run.recommender, run.method)]


def values(search: Search, run: Run, trial: int) -> dict[str, Any]:
    """What a trial that learns from no other sets, by path.

    Trials do not depend on how many there are; systems with the same paths get the same ones.
    """
    paths = _paths(search, run)
    if search.sampler == "random":
        points = _random(len(paths), search.seed, trial)
    else:
        points = _sobol(len(paths), search.seed, trial)
    return {path: search.space[path].value(at) for path, at in zip(paths, points, strict=True)}


def _random(dimensions: int, seed: int, trial: int) -> Sequence[float]:
    """A point of the unit cube."""
    import numpy as np  # here, for reading a workflow without a search loads no numpy

    return [float(at) for at in np.random.default_rng((seed, trial)).random(dimensions)]


@cache
def _sobol(dimensions: int, seed: int, trial: int) -> Sequence[float]:
    """The point of this number of a scrambled Sobol sequence in the unit cube."""
    import numpy as np
    from scipy.stats import qmc

    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    if trial:
        sequence.fast_forward(trial)
    return [float(at) for at in sequence.random(1)[0]]


def trial_run(plan: Plan, name: str, trial: int) -> Run:
    """The run that a trial trains: that of the first seed, with the trial's values unless its round says them.

    Args:
        name: `system/recommender`.
    """
    run = searched(plan)[name]
    config = plan.config
    assert config.search is not None
    if run.heuristic:  # validated as trained systems are, whose runs say how
        training = run.training.model_copy(update={"validation_users": config.training.validation_users})
        judged = {"mask_seen": config.evaluation.mask_seen, "repeat_targets": config.evaluation.repeat_targets}
        run = run.model_copy(update={"training": training, **judged})
    return run if asked_round(config.search, trial) else with_values(run, values(config.search, run, trial))


def trial_problems(plan: Plan) -> Iterator[str]:
    """Values of the space that fit by themselves and not together: of trials whose values are known before the run,
    else of any two choices."""
    search = plan.config.search
    if search is None:
        return
    for name, run in searched(plan).items():
        for chosen in _combinations(search, run):
            if misfit := _misfit(plan, run, chosen):
                listed = ", ".join(f"{path}: {value}" for path, value in chosen.items())
                yield f"search.space: of {name} ({listed}): {misfit}; leave values out that do not fit together"
                break


def _combinations(search: Search, run: Run) -> Iterator[dict[str, Any]]:
    """The values of the trials; where trials learn from one another, those of the first round, and the choices and ends
    of any two paths beside the values of the first trial."""
    known = min(search.trials, search.round) if search.sampler in LEARNING else search.trials
    yield from (values(search, run, trial) for trial in range(min(known, _MOST_TRIED)))
    if known < search.trials:
        first = values(search, run, 0)
        ends = {path: search.space[path].choices or [search.space[path].low, search.space[path].high] for path in first}
        for one, other in combinations(ends, 2):
            yield from (first | {one: a, other: b} for a, b in product(ends[one], ends[other]))


def _misfit(plan: Plan, run: Run, chosen: dict[str, Any]) -> str:
    """What is wrong with a run of these values; empty where nothing is."""
    try:
        run = with_values(run, chosen)
    except ValidationError as error:
        problem = error.errors()[0]
        return expectation(problem, problem["input"])
    parts = [run.method] if run.backbone is None else [run.method, run.backbone]
    return next((f"{key}: {problem}" for part in parts for key, problem in part.problems(plan.config)), "")


def asked_round(search: Search, trial: int) -> int:
    """The round whose file says what a trial sets; 0 where the trial learns from no other."""
    return trial // search.round if search.sampler in LEARNING else 0


def asking(plan: Plan, name: str) -> Asking:
    """What the values of a round depend on besides the trials of the rounds before.

    Args:
        name: `system/recommender`.
    """
    search = plan.config.search
    assert search is not None
    space = {path: search.space[path] for path in _paths(search, searched(plan)[name])}
    return Asking(space=space, sampler=search.sampler, seed=search.seed, round=search.round)


def remark(plan: Plan, run: Run) -> str | None:
    """What stands beside the numbers of a run that is searched."""
    search = plan.config.search
    if search is None or not is_searched(plan, run):
        return None
    how = {"random": "random", "sobol": "quasi-random", "tpe": "TPE", "gp": "Gaussian-process"}[search.sampler]
    return f"settings chosen on validation among {search.trials} {how} trials"


def unsearched(plan: Plan) -> dict[str, str]:
    """What stands beside systems that might have been searched and were not, by `system/recommender`.

    Tables say it: a search, or another number of its trials, judges nothing of them again.
    """
    search = plan.config.search
    if search is None:
        return {}
    left = (run for run in plan.runs if searchable(run.method) and not is_searched(plan, run))
    said = f"settings not searched, where others had {search.trials} trials"
    return {run.path.rpartition("/")[0]: said for run in left}
