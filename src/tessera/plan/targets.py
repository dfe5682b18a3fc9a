"""What is asked for by name: files of runs that the config does not have, and folders that nobody can write to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tessera.artifacts.places import RESULTS
from tessera.plan.jobs import Jobs
from tessera.plan.new_items import unplaced
from tessera.plan.search import searched
from tessera.settings.base import ConfigError, did_you_mean, message

_ORACLE = "oracle"


def check_targets(jobs: Jobs, targets: Iterable[str], where: str = "config") -> None:
    """Refuse files of runs, trials, lists and exported folders that the config has not: no rule could make them.

    Args:
        jobs: of the config.
        targets: as Snakemake was given them; what is no such file is its to judge.
        where: what the message calls the config.
    Raises:
        ConfigError: one message with every such file, a line each.
    """
    known = _known(jobs)
    wrong = [problem for target in targets for problem in _problems(jobs, os.path.normpath(target), known)]
    if wrong:
        raise ConfigError(message(f"{where}: {problem}" for problem in wrong))


def _known(jobs: Jobs) -> dict[str, set[str]]:
    """Folders of a dataset whose files belong to a name, with the names."""
    trained = set(jobs.plan.trained)
    return {
        "runs": trained | {f"{_ORACLE}/{_ORACLE}/seed-0"},
        "recommendations": trained,
        "export": {name.rpartition("/")[0] for name in trained},
        "trials": set(searched(jobs.plan)),
        "ctr/runs": set(jobs.plan.click_runs) | {f"{_ORACLE}/seed-0"},
    }


def _problems(jobs: Jobs, target: str, known: dict[str, set[str]]) -> Iterator[str]:
    for dataset in [*jobs.config.experiment.datasets, *jobs.config.finals]:
        for folder, names in known.items():
            below = f"{jobs.root}/{dataset}/{folder}/"
            if not target.startswith(below):
                continue
            depth = max((name.count("/") + 1 for name in names), default=2)
            parts = target.removeprefix(below).split("/")[:depth]
            if folder == "recommendations":  # a file, and no folder
                parts[-1] = parts[-1].partition(".")[0]
            name = "/".join(parts)
            if len(parts) == depth and name not in names:
                yield f"{target}: {name!r} is none of the config's {folder}{did_you_mean(name, names)}"
            elif folder == "recommendations" and name in names and (problem := unplaced(jobs.plan, name)):
                yield f"{target}: {problem}"


def check_writable(root: str | Path, where: str = "config") -> None:
    """Refuse to begin where results cannot be written.

    Raises:
        ConfigError: the first folder on the way that cannot be written to.
    """
    for folder in (Path(), Path(".snakemake"), Path(RESULTS), Path(root)):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{where}: {folder.resolve()}: cannot be written to, and a run writes there; run in a folder of your "
                "own, or let it be written to"
            )
