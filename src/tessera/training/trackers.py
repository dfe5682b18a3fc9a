"""The curve of a training in the trackers that a config asks for, through accelerate's: files alone, unless it asks for
the network."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tessera.artifacts.logs import log, stage_log
from tessera.settings.training import LoopSettings, missing_tracker
from tessera.training.errors import TrainingError

FOLDER = Path("tracking")
"""Below the working directory, a folder a tracker: what was tracked outlives `state/`."""
OFFLINE: dict[str, dict[str, str | None]] = {
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true"},
    "trackio": dict.fromkeys(["TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID"]),
    "wandb": {"WANDB_ERROR_REPORTING": "false"},
}
"""Variables of the trackers that send something whatever else they are told: as they stand without the network."""
PROJECT = "tessera"
"""What runs are gathered under, where results have no folder of their experiment."""


def run_name(logfile: str | Path | None, label: str) -> tuple[str, str]:
    """Experiment, and a name that a person reads: `experiment/dataset/system/recommender/seed-1`.

    Args:
        logfile: of the stage, whose place says it: `results/<experiment>/logs/train/...`; None outside of a workflow.
        label: what the training is called elsewhere.
    """
    parts = Path(logfile).with_suffix("").parts if logfile is not None else ()
    if "logs" not in parts:
        return PROJECT, label
    place = len(parts) - 1 - parts[::-1].index("logs")
    above = parts[place - 1] if place else ""
    rule, dataset, *of = [*parts[place + 1 :], ""] if len(parts) == place + 2 else parts[place + 1 :]
    named = [dataset, *([] if rule in ("train", "train_ctr") else [rule]), *of]
    experiment = above if above not in ("", "results", os.sep) else None
    return experiment or PROJECT, "/".join(filter(None, [experiment, *named]))


def _keep_offline(tracker: str) -> None:
    """Set what a tracker reads when it is imported and when it starts, so that nothing is sent."""
    for name, value in OFFLINE.get(tracker, {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _tensorboard(name: str, project: str, identity: str, online: bool) -> Any:
    from accelerate.tracking import TensorBoardTracker
    from torch.utils import tensorboard  # noqa: F401

    return TensorBoardTracker(name, FOLDER / "tensorboard")


def _mlflow(name: str, project: str, identity: str, online: bool) -> Any:
    import mlflow
    from accelerate.tracking import MLflowTracker

    if not online or not os.environ.get("MLFLOW_TRACKING_URI"):
        # files are what is asked for: a database would need what the skinny package leaves out
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        folder = (FOLDER / "mlflow").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(folder.as_uri())
    with _one_at_a_time("mlflow"):
        _make_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", project))
        again = mlflow.search_runs(
            filter_string=f"tags.`tessera.identity` = '{identity}'", search_all_experiments=True, output_format="list"
        )
    run = again[0].info.run_id if again else None
    return MLflowTracker(project, run_id=run, run_name=name, tags={"tessera.identity": identity})


@contextmanager
def _one_at_a_time(tracker: str) -> Iterator[None]:
    """Let the trainings of this folder do something one after the other, where its disk knows locks."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f".{tracker}.lock").open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_experiment(project: str) -> None:
    """Make the experiment of MLflow that runs are gathered under.

    A store in files lets two trainings that begin at once make two of one name, and one of them hides the runs of the
    other; a server refuses the second.
    """
    import mlflow

    if mlflow.get_experiment_by_name(project) is None:
        with suppress(mlflow.exceptions.MlflowException):  # made elsewhere meanwhile; else the tracker's start says why
            mlflow.create_experiment(project)


def _trackio(name: str, project: str, identity: str, online: bool) -> Any:
    os.environ.setdefault("TRACKIO_DIR", str((FOLDER / "trackio").resolve()))
    import trackio  # noqa: F401
    from accelerate.tracking import TrackioTracker

    space = {} if online else {"space_id": None}
    return TrackioTracker(project, name=name, resume="allow", embed=False, **space)


def _wandb(name: str, project: str, identity: str, online: bool) -> Any:
    import wandb  # noqa: F401
    from accelerate.tracking import WandBTracker

    folder = FOLDER / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    mode = {} if online else {"mode": "offline"}
    again = {"id": identity, "resume": "allow"} if online else {}
    return WandBTracker(project, name=name, dir=str(folder.resolve()), **again, **mode)


_MAKE: dict[str, Callable[[str, str, str, bool], Any]] = {
    "tensorboard": _tensorboard, "mlflow": _mlflow, "trackio": _trackio, "wandb": _wandb,
}  # fmt: skip


class Trackers:
    """Everything that is told of a training while it runs; what fails there ends no training."""

    def __init__(self, settings: LoopSettings, label: str, identity: str) -> None:
        """
        Args:
            settings: which trackers, and whether the network may be used.
            label: what the training is called, outside of a workflow.
            identity: of the training; one that goes on after a kill goes on in its trackers.
        Raises:
            TrainingError: the package of a tracker is not installed.
        """
        self._open: dict[str, Any] = {}
        from accelerate import PartialState

        PartialState()  # which accelerate's own log asks for
        project, self.name = run_name(stage_log(), label)
        for tracker in map(str, settings.trackers):
            if not settings.trackers_online:
                _keep_offline(tracker)
            try:
                made = _MAKE[tracker](self.name, project, identity, settings.trackers_online)
            except ImportError as error:
                raise TrainingError(f"training.trackers: {missing_tracker(tracker)} ({error})") from None
            except Exception as error:
                self._warn(tracker, error)
                continue
            if self._tried(tracker, made.start):
                self._open[tracker] = made
        hyperparameters = {
            name: value
            for name, value in settings.identity().items()
            if isinstance(value, (str, int, float)) and value is not None
        }
        for tracker, made in list(self._open.items()):
            if tracker != "tensorboard":  # which would make a run of its own of them
                self._tried(tracker, partial(made.store_init_configuration, hyperparameters))

    def _tried(self, tracker: str, call: Callable[[], Any]) -> bool:
        try:
            call()
        except Exception as error:
            self._warn(tracker, error)
            if (broken := self._open.pop(tracker, None)) is not None:
                with suppress(Exception):  # what it has is kept, and the next training may begin another
                    broken.finish()
            return False
        return True

    def _warn(self, tracker: str, error: Exception) -> None:
        log.warning("%s: tracking by %s ends here: %s", self.name, tracker, error)

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """A row of the curve: its numbers under their names."""
        numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
        for tracker, made in list(self._open.items()):
            # MLflow takes no `@` in a name
            named = {name.replace("@", "_at_"): value for name, value in numbers.items()}
            self._tried(tracker, partial(made.log, named if tracker == "mlflow" else numbers, step=step))

    def finish(self) -> None:
        """The training is done."""
        for tracker, made in list(self._open.items()):
            self._tried(tracker, made.finish)
        self._open.clear()
