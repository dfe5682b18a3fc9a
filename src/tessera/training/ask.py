"""The trials of a round, where a sampler of Optuna says what is tried after the rounds before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.logs import log
from tessera.settings.search import Asking, Dimension

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

FAILED = 0.0
"""What a trial that failed counts as: the worst that NDCG can be, so that its neighbourhood is left alone."""


def ask_round(asking: Asking, trials: Sequence[Path], output: Path) -> None:
    """Write the values of a round's trials to `output`: `values`, by trial and path.

    All of the round are asked for in their order, and each sees where those before it lie, but not what they came to:
    they can be trained beside one another. The study is fresh: the same trials give the same round, whoever asks.

    Args:
        asking: the space, the sampler, and its seed.
        trials: paths of trial.json of all rounds before, in the order of the trials.
        output: path of the round's file.
    """
    import optuna  # an extra

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.monotonic()
    distributions = {path: distribution(dimension) for path, dimension in asking.space.items()}
    study = optuna.create_study(direction="maximize", sampler=_sampler(asking, len(trials)))
    for path in trials:
        outcome = read_json(path)
        parameters = {name: parameter(asking.space[name], value) for name, value in outcome["values"].items()}
        reached = FAILED if outcome["validation"] is None else outcome["validation"]
        study.add_trial(optuna.create_trial(params=parameters, distributions=distributions, value=reached))
    values: dict[str, dict[str, Any]] = {}
    for number in range(len(trials), len(trials) + asking.round):
        parameters = study.ask(distributions).params
        values[str(number)] = {name: setting(asking.space[name], parameters[name]) for name in sorted(parameters)}
    write_json(output, {"sampler": asking.sampler, "values": values})
    log.info(
        "trials %d to %d by %s of Optuna %s, after %d trials, in %.1f s", len(trials), number, asking.sampler,
        optuna.__version__, len(trials), time.monotonic() - started,
    )  # fmt: skip


def _sampler(asking: Asking, before: int) -> BaseSampler:
    """A sampler for one round; every round draws from numbers of its own."""
    import optuna

    seed = int(np.random.SeedSequence((asking.seed, before)).generate_state(1)[0])
    if asking.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1)
    # a liar: trials of the round that were asked for before push the next ones away
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension as Optuna has it; of choices, their numbers."""
    import optuna

    if dimension.choices is not None:
        return optuna.distributions.CategoricalDistribution(range(len(dimension.choices)))
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):
        return optuna.distributions.IntDistribution(low, high, log=dimension.log)
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log)


def parameter(dimension: Dimension, value: Any) -> Any:
    """A setting's value as Optuna has it."""
    if dimension.choices is not None:
        choices = dimension.choices
        same = [at for at, choice in enumerate(choices) if choice == value]
        return min(same, key=lambda at: type(choices[at]) is not type(value))  # 1 equals true, and is another setting
    assert dimension.low is not None
    assert dimension.high is not None
    return min(max(value, dimension.low), dimension.high)  # a setting is rounded


def setting(dimension: Dimension, value: Any) -> Any:
    """The setting that Optuna's value stands for."""
    if dimension.choices is not None:
        return dimension.choices[value]
    return dimension.rounded(value) if isinstance(value, float) else value
