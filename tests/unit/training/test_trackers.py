"""Trackers: readable names, files alone, and no training that ends because one of them does."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tessera.artifacts.logs import stage
from tessera.plan.graph import Plan
from tessera.plan.required import check_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.training import LoopSettings
from tessera.training.errors import TrainingError
from tessera.training.trackers import Trackers, run_name

ROWS = [{"epoch": 1, "loss": 2.5, "NDCG@10": 0.1, "phase": "training"}, {"epoch": 2, "loss": 2.25, "NDCG@10": 0.2}]
NAME = "shop/bazaar/id/sasrec/seed-1"
LOG = "results/shop/logs/train/bazaar/id/sasrec/seed-1.log"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)


def track(*names: str, identity: str = "abc123", rows: Any = ROWS) -> None:
    with stage(LOG):
        trackers = Trackers(LoopSettings(trackers=list(names)), "id/seed-1", identity)
        for row in rows:
            trackers.log(row, row["epoch"])
        trackers.finish()


@pytest.mark.parametrize(
    ("logfile", "expected"),
    [
        (LOG, ("shop", NAME)),
        ("results/logs/train/bazaar/id/sasrec/seed-1.log", ("tessera", "bazaar/id/sasrec/seed-1")),
        ("/shops/mine/results/logs/train_ctr/bazaar/din/seed-1.log", ("tessera", "bazaar/din/seed-1")),
        ("results/shop/logs/tune/bazaar/llmemb.log", ("shop", "shop/bazaar/tune/llmemb")),
        ("results/logs/quantize/bazaar/plain.log", ("tessera", "bazaar/quantize/plain")),
        (None, ("tessera", "id/seed-1")),
    ],
)
def test_names(logfile: str | None, expected: tuple[str, str]) -> None:
    assert run_name(logfile, "id/seed-1") == expected


def test_tensorboard() -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard")
    events = EventAccumulator(f"tracking/tensorboard/{NAME}").Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.5), (2, 2.25)]
    assert set(events.Tags()["scalars"]) == {"epoch", "loss", "NDCG@10"}


def test_mlflow_in_files_and_on_after_a_kill() -> None:
    mlflow = pytest.importorskip("mlflow")
    track("mlflow", rows=ROWS[:1])
    track("mlflow", rows=ROWS[1:])  # the same training goes on
    track("mlflow", identity="other", rows=ROWS[:1])
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert sorted(run.data.tags["tessera.identity"] for run in runs) == ["abc123", "other"]
    assert {run.info.run_name for run in runs} == {NAME}
    (run,) = [run for run in runs if run.data.tags["tessera.identity"] == "abc123"]
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.5), (2, 2.25)]
    assert run.data.metrics["NDCG_at_10"] == 0.2
    assert Path("tracking/mlflow").is_dir()
    assert not Path("mlruns").exists()


class Experiments(ModuleType):
    """MLflow, as far as experiments go."""

    class exceptions:  # noqa: N801
        class MlflowException(Exception):
            """A server knows the name."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.made: list[str] = []

    def get_experiment_by_name(self, name: str) -> str | None:
        """What this server knows."""
        return name if name in self.made else None

    def create_experiment(self, name: str) -> None:
        """Another training of another machine was faster."""
        self.made.append(name)
        raise self.exceptions.MlflowException(f"{name} exists")


def test_an_experiment_of_mlflow_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tessera.training import trackers

    monkeypatch.setitem(sys.modules, "mlflow", store := Experiments())
    for _ in range(2):
        trackers._make_experiment("shop")
    assert store.made == ["shop"]


def test_trainings_of_a_folder_go_one_after_the_other() -> None:
    from tessera.training import trackers

    inside = [0]

    def enter(_: int) -> None:
        with trackers._one_at_a_time("mlflow"):  # each opens the file anew, as another process would
            inside[0] += 1
            assert inside[0] == 1
            time.sleep(0.02)
            inside[0] -= 1

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(enter, range(6)))


def test_trackio_in_files() -> None:
    if importlib.util.find_spec("trackio") is None:  # not imported here: it looks for its folder then
        pytest.skip("trackio is not installed")
    track("trackio")
    (base,) = Path("tracking/trackio").glob("shop*.db")
    told = " ".join(str(row) for row in sqlite3.connect(base).execute("SELECT run_name, metrics FROM metrics"))
    assert NAME in told
    assert "2.25" in told


def test_wandb_offline() -> None:
    pytest.importorskip("wandb")
    track("wandb")
    (run,) = Path("tracking/wandb/wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize(
    ("tracker", "name", "given", "offline"),
    [
        ("trackio", "TRACKIO_SPACE_ID", "somebody/else", None),
        ("trackio", "TRACKIO_SERVER_URL", "https://somewhere", None),
        ("mlflow", "MLFLOW_DISABLE_TELEMETRY", None, "true"),
        ("wandb", "WANDB_ERROR_REPORTING", None, "false"),
    ],
)
def test_a_variable_sends_nothing_unless_the_config_says_so(
    monkeypatch: pytest.MonkeyPatch, tracker: str, name: str, given: str | None, offline: str | None, online: bool
) -> None:
    """Whoever makes the tracker sees the variables as they are when the package is imported."""
    from tessera.training import trackers

    monkeypatch.delenv(name, raising=False) if given is None else monkeypatch.setenv(name, given)
    seen: list[str | None] = []

    def make(*_: Any) -> Any:
        seen.append(os.environ.get(name))
        raise OSError("it is not needed")

    monkeypatch.setitem(trackers._MAKE, tracker, make)
    with stage(LOG):
        Trackers(LoopSettings(trackers=[tracker], trackers_online=online), "id/seed-1", "abc123")
    assert seen == [given if online else offline]


class Broken:
    """A tracker whose disk is full from its second row on."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.ended = False

    def start(self) -> None:
        """It starts."""

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """It has room for that."""
        json.dumps(values)

    def log(self, values: dict[str, Any], step: int) -> None:
        """One row fits."""
        if self.rows:
            raise OSError("no space left on device")
        self.rows.append(values)

    def finish(self) -> None:
        """It ends with what it has."""
        self.ended = True
        raise OSError("no space left on device")


def test_a_tracker_that_breaks_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from tessera.training import trackers

    made = Broken()
    monkeypatch.setitem(trackers._MAKE, "mlflow", lambda *_: made)
    track("mlflow", rows=[*ROWS, {"epoch": 3, "loss": 2.0}])
    assert made.rows == [{"epoch": 1, "loss": 2.5, "NDCG_at_10": 0.1}]
    assert made.ended
    said = Path(LOG).read_text()
    assert said.count("tracking by mlflow ends here: no space left on device") == 1


def test_a_missing_package_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TrainingError, match=r"mlflow is not installed; pip install -e '\.\[mlflow\]' -c constraints"):
        Trackers(LoopSettings(trackers=["mlflow"]), "x", "y")


CONFIG = {"datasets": {"b": {"source": "bazaar"}}, "experiment": {"datasets": ["b"]}}


def test_a_missing_package_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from tessera.plan import required

    real = importlib.util.find_spec
    monkeypatch.setattr(required, "find_spec", lambda name: None if name == "wandb" else real(name))
    with pytest.raises(ConfigError) as caught:
        check_files(Plan(load(CONFIG | {"training": {"trackers": ["wandb"]}})), "my.yaml")
    wanted = "my.yaml: training.trackers: wandb is not installed; pip install -e '.[wandb]' -c constraints.txt"
    assert str(caught.value) == wanted
    check_files(Plan(load(CONFIG)), "my.yaml")


@pytest.mark.parametrize("section", ["training", "models"])
def test_the_old_key_is_refused_with_the_new_one(section: str) -> None:
    old: dict[str, Any] = {"tensorboard": True}
    given = {"training": old} if section == "training" else {"models": {"m": {"built": "qwen2.5-vl", "training": old}}}
    with pytest.raises(ConfigError, match=r"unknown key 'tensorboard' .*; it is `trackers: \[tensorboard\]` now"):
        load(CONFIG | given)


def test_a_run_of_before_is_still_read() -> None:
    from tessera.serving.folder import _as_written_today

    told = {"training": {"epochs": 3, "tensorboard": False}, "model": {"training": {"tensorboard": True}}, "tables": []}
    assert _as_written_today(told) == {"training": {"epochs": 3}, "model": {"training": {}}, "tables": []}
