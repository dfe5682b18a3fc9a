"""The trials of a search: what each trains, the same whoever asks, and however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from tessera.plan.graph import Plan
from tessera.settings.changes import with_values
from tessera.settings.runs import Run
from tessera.settings.search import Search, touches
from tessera.settings.systems.backbone import BackboneSystem
from tessera.settings.systems.base import TrainedSystem


def is_searched(plan: Plan, run: Run) -> bool:
    """Whether the settings of a run are chosen by a search."""
    search = plan.config.search
    if search is None or not isinstance(run.method, TrainedSystem):
        return False
    compared = plan.config.experiment.systems
    return run.system in (search.systems if search.systems is not None else compared)


def searched(plan: Plan) -> dict[str, Run]:
    """`system/recommender` of everything that is searched, with the run of its first seed."""
    runs: dict[str, Run] = {}
    for run in plan.runs:
        if is_searched(plan, run):
            runs.setdefault(f"{run.system}/{run.recommender}", run)
    return runs


def values(search: Search, run: Run, trial: int) -> dict[str, Any]:
    """What a trial sets, by path.

    Trials do not depend on how many there are; systems with the same paths get the same ones.
    """
    own_loss = not isinstance(run.method, BackboneSystem) or run.method.loss is not None
    paths = [path for path in sorted(search.space) if touches(path, run.system, run.recommender, own_loss)]
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
    """The run that a trial trains: that of the first seed, with the trial's values.

    Args:
        name: `system/recommender`.
    """
    run = searched(plan)[name]
    assert plan.config.search is not None
    return with_values(run, values(plan.config.search, run, trial))


def remark(plan: Plan, run: Run) -> str | None:
    """What stands beside the numbers of a run where something is searched."""
    search = plan.config.search
    if search is None or not isinstance(run.method, TrainedSystem):
        return None
    if not is_searched(plan, run):
        return f"settings not searched, where others had {search.trials} trials"
    how = {"random": "random", "sobol": "quasi-random"}[search.sampler]
    return f"settings chosen on validation among {search.trials} {how} trials"
