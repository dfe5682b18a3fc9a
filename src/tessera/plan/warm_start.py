"""The run that a training goes on from: where it lies, and whether its settings let it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tessera.artifacts.files import read_json
from tessera.artifacts.places import place
from tessera.artifacts.run_folder import DESCRIPTION, RunFolder
from tessera.data.files import check_name, find
from tessera.plan.graph import Noun, Plan
from tessera.settings.base import Settings, did_you_mean, shown_value
from tessera.settings.kinds import Kind
from tessera.settings.references import references
from tessera.settings.runs import Run

if TYPE_CHECKING:
    from tessera.plan.jobs import Jobs


def _differences(before: Settings, now: Settings, path: str) -> Iterator[str]:
    """What of two settings is not the same though weights depend on it, as `key: is A here, B there`."""
    if type(before) is not type(now):
        kinds = [
            getattr(part, "kind", None) or getattr(part, "recommender", type(part).__name__) for part in (now, before)
        ]
        yield f"{path}: is {kinds[0]} here, {kinds[1]} there"
        return
    free = {*(now.FREE if isinstance(now, Kind) else ()), *(reference.path for reference in references(now))}
    for name in type(now).model_fields:
        ours, theirs = getattr(now, name), getattr(before, name)
        if name in free or ours == theirs:
            continue
        if isinstance(ours, Settings) and isinstance(theirs, Settings):
            yield from _differences(theirs, ours, f"{path}.{name}")
        elif not (isinstance(ours, float) and isinstance(theirs, float)):
            yield f"{path}.{name}: is {_short(ours)} here, {_short(theirs)} there"


def _short(value: Any) -> str:
    return shown_value(value.model_dump() if isinstance(value, Settings) else value)


def _own_folders(jobs: Jobs) -> dict[Path, str]:
    """The folders that a config writes, with the dataset of each."""
    names = [*jobs.config.experiment.datasets, *jobs.config.finals]
    runs = {name: Path(jobs.file(Noun("run", "system/recommender/seed-1"), name)) for name in names}
    return {RunFolder(file.parent).root.absolute(): name for name, file in runs.items()}


def warm_start_problems(jobs: Jobs) -> Iterator[str]:
    """What is in the way of the runs that go on from others, as `key: what`; opens their descriptions alone."""
    plan, own = jobs.plan, _own_folders(jobs)
    for dataset, run in jobs.going_on():
        key = _key(plan, run)
        try:
            files = RunFolder(jobs.start_folder(run, dataset))
            where = files.root.absolute()
            if made := [own[folder] for folder in (where, *where.parents) if folder in own]:
                yield (
                    f"{key}: {files.folder} is in the folder of {made[0]!r}, which this config writes itself: keep the "
                    "earlier run elsewhere (tessera.load(RUN).save(FOLDER)) and name that"
                )
                continue
            for file in (files.model, files.items):
                if not file.is_file():
                    raise FileNotFoundError(f"{file}: no such file, which a run to go on from has")
                check_name(file)
            before = _earlier(files)
        except (ValueError, OSError) as error:
            yield f"{key}: {error}"
            continue
        parts: dict[str, tuple[Settings | None, Settings | None]] = {
            f"systems.{run.system}": (before.method, run.method),
            f"backbones.{run.recommender}": (before.backbone, run.backbone),
            "the language model": (before.model, run.model),
        }
        for part, (theirs, ours) in parts.items():
            if theirs is None or ours is None:
                continue  # then the systems differ, which is told
            for difference in _differences(theirs, ours, part):
                yield f"{key}: {files.description}: another system cannot go on from it: {difference}"


def _earlier(files: RunFolder) -> Run:
    said = read_json(files.description)
    if not isinstance(said, Mapping) or "run" not in said:
        raise ValueError(f"{files.description}: describes no run of a recommender")
    try:
        run = Run.model_validate(said["run"])
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "run"
        raise ValueError(f"{files.description}: not a run that this Tessera reads: {where}: {wrong['msg']}") from None
    if run.heuristic:
        raise ValueError(f"{files.description}: is of {run.system!r}, which is fitted by counting and has no weights")
    return run


def _key(plan: Plan, run: Run) -> str:
    """Where the config says what the run goes on from."""
    if "warm_start" in getattr(run.method, "training", {}):
        return f"systems.{run.system}.training.warm_start"
    if run.backbone is not None and "warm_start" in run.backbone.training:
        return f"backbones.{run.recommender}.training.warm_start"
    return "training.warm_start"


def start_folder(path: str, run: str, dataset: str) -> Path:
    """The folder of the run that `warm_start` names for a run on a dataset.

    Args:
        path: a run's folder, one that `save` wrote, or one of runs, or of datasets with runs.
        run: folder of the run that goes on, below `runs`.
        dataset: on which it is trained.
    Raises:
        FileNotFoundError: there is none; the message names the nearest.
    """
    folder = find(path)
    below = place("run", run, DESCRIPTION)
    tried = [folder, folder / run, folder / dataset / Path(below).parent]
    for one in tried:
        if (one / DESCRIPTION).is_file():
            return one
    files = folder.glob(f"**/seed-*/{DESCRIPTION}") if folder.is_dir() else []
    names = [file.parent.relative_to(folder).as_posix() for file in files]
    wanted = next(
        (name for name in (run, tried[2].relative_to(folder).as_posix()) if _deep(name) in map(_deep, names)), run
    )
    raise FileNotFoundError(f"{folder}: holds no finished run {wanted!r}{did_you_mean(wanted, names)}")


def _deep(name: str) -> int:
    return name.count("/")
