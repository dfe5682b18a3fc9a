"""A training that is killed goes on where it stopped, to the same digits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from tiny_project import ROOT, Project, environment, snakemake_command, trainers

pytestmark = pytest.mark.workflow
RUN = "results/tiny/bazaar/runs/id/sasrec/seed-1"
EPOCHS = 60


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project without its runs, and a config that trains long enough to be killed."""
    folder = tmp_path_factory.mktemp("resume") / "tessera"
    # content and times both kept, so that the dataset is not made again
    subprocess.run(["cp", "-rp", str(finished.folder), str(folder)], check=True)
    shutil.rmtree(folder / "results/tiny/bazaar/runs")
    shutil.rmtree(folder / "state", ignore_errors=True)
    found = Project(folder)
    found.write_config(
        found.config(training__epochs=EPOCHS, training__patience=EPOCHS, datasets__bazaar__users=120), "long.yaml"
    )
    return found


def arguments() -> list[str]:
    return [f"{RUN}/metrics.json", "--cores", "1", "--configfile", "long.yaml"]


def start(project: Project, **variables: str) -> subprocess.Popen[str]:
    """Snakemake in a process group of its own."""
    log = (project.folder / "run.log").open("a")
    return subprocess.Popen(
        snakemake_command(*arguments()), cwd=project.folder, env=environment() | variables, text=True, stdout=log,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for_checkpoint(project: Project, process: subprocess.Popen[str]) -> Path:
    """Until an epoch or more is saved."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        saved = list((project.folder / "state").glob("*/*/*/checkpoint.safetensors"))
        if saved:
            return saved[0]
        assert process.poll() is None, (project.folder / "run.log").read_text()
        time.sleep(0.02)
    raise AssertionError("no checkpoint within 120 s")


def results(project: Project) -> tuple[object, list[dict[str, float]]]:
    metrics = json.loads((project.folder / RUN / "metrics.json").read_text())
    metrics.pop("seconds", None)
    lines = (project.folder / RUN / "history.jsonl").read_text().splitlines()
    timings = ("seconds", "targets_per_second", "validation_seconds")
    history = [{k: v for k, v in json.loads(line).items() if k not in timings} for line in lines]
    return metrics, history


def forget(project: Project) -> None:
    shutil.rmtree(project.folder / "results/tiny/bazaar/runs")
    shutil.rmtree(project.folder / "state", ignore_errors=True)
    (project.folder / "results/tiny/logs/train/bazaar/id/sasrec/seed-1.log").unlink()


@pytest.fixture(scope="module")
def undisturbed(project: Project) -> tuple[object, list[dict[str, float]]]:
    done = project.snakemake(*arguments())
    assert done.returncode == 0, done.stdout
    found = results(project)
    weights = (project.folder / RUN / "model.safetensors").read_bytes()
    forget(project)
    return *found, weights


def log_text(project: Project) -> str:
    return (project.folder / "results/tiny/logs/train/bazaar/id/sasrec/seed-1.log").read_text()


def test_a_killed_trainer_is_retried_and_resumes(project: Project, undisturbed: tuple[object, ...]) -> None:
    with start(project) as process:
        wait_for_checkpoint(project, process)
        for trainer in trainers(process):
            trainer.send_signal(signal.SIGKILL)
        assert process.wait(300) == 0, (project.folder / "run.log").read_text()
    weights = (project.folder / RUN / "model.safetensors").read_bytes()
    assert (*results(project), weights) == undisturbed
    assert "resum" in log_text(project).lower()
    forget(project)


def test_a_killed_run_goes_on(project: Project, undisturbed: tuple[object, ...]) -> None:
    with start(project) as process:
        wait_for_checkpoint(project, process)
        os.killpg(process.pid, signal.SIGKILL)
    unlocked = subprocess.run(
        [snakemake_command()[0], str(ROOT / "tools/unlock.py")],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert unlocked.returncode == 0, unlocked.stderr
    assert "killed" in unlocked.stderr
    done = project.snakemake(*arguments())
    assert done.returncode == 0, done.stdout
    weights = (project.folder / RUN / "model.safetensors").read_bytes()
    assert (*results(project), weights) == undisturbed
    assert "resum" in log_text(project).lower()


def test_a_killed_snakemake_leaves_no_jobs(project: Project) -> None:
    forget(project)
    with start(project) as process:
        wait_for_checkpoint(project, process)
        jobs = trainers(process)
        process.kill()
        assert jobs
        assert psutil.wait_procs(jobs, timeout=60)[1] == []
    (project.folder / ".snakemake/locks").rename(project.folder / ".snakemake/old_locks")
    forget(project)


def test_a_job_that_is_started_does_what_a_forked_one_does(project: Project, undisturbed: tuple[object, ...]) -> None:
    with start(project, TESSERA_FORK_SERVERS="none") as process:
        assert process.wait(300) == 0, (project.folder / "run.log").read_text()
    weights = (project.folder / RUN / "model.safetensors").read_bytes()
    assert (*results(project), weights) == undisturbed
    forget(project)


def test_a_lock_that_is_held_is_left_alone(project: Project) -> None:
    locks = project.folder / ".snakemake/locks"
    locks.mkdir(parents=True, exist_ok=True)
    (locks / "0.output.lock").write_text("results/x\n")
    command = [snakemake_command()[0], "-c", "import time; time.sleep(60)", "snakemake"]
    with subprocess.Popen(command, cwd=project.folder) as process:
        done = subprocess.run(
            [snakemake_command()[0], str(ROOT / "tools/unlock.py")],
            cwd=project.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        process.kill()
    assert done.returncode == 1
    assert str(process.pid) in done.stderr
    assert (locks / "0.output.lock").exists()
