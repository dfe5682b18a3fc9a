"""`snakemake --profile slurm` on a real Slurm: jobs ask for what the config says, and a cancelled one goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from slurm_cluster import Cluster
from tiny_project import Project, copy_repository, environment, snakemake_command

pytestmark = pytest.mark.slurm

RUN = "results/tiny/bazaar/runs/id/gru4rec/seed-1"
# Polls often, for the test's sake; everything else is the shipped profile.
QUICK = [
    "--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1",
    "--latency-wait", "5",
]  # fmt: skip
EPOCHS = 60


@pytest.fixture(scope="module")
def project(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the repository whose training asks for a GPU, 3 minutes and 700 MB."""
    found = Project(tmp_path_factory.mktemp("slurm") / "tessera")
    copy_repository(found.folder)
    resources = {"mem_mb": 700, "runtime": 3, "gpu": 1, "threads": 2, "retries": 1}
    config = found.config(training__epochs=EPOCHS, training__patience=EPOCHS, resources__train=resources)
    found.write_config(config, "cluster.yaml")
    return found


def start(project: Project, cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    """Snakemake under the Slurm profile; killed for good after five minutes, for a hung one ignores SIGTERM."""
    command = snakemake_command(*arguments, "--configfile", "cluster.yaml", *QUICK)
    variables = environment() | {name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
    return subprocess.Popen(
        ["timeout", "-s", "KILL", "300", *command], cwd=project.folder, env=variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def results(folder: Path) -> tuple[object, bytes]:
    metrics = json.loads((folder / RUN / "metrics.json").read_text())
    metrics.pop("seconds")
    return metrics, (folder / RUN / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def through_slurm(project: Project, cluster: Cluster) -> str:
    """The output of a run of four stages; its jobs stay known to the controller."""
    with start(project, cluster, f"{RUN}/metrics.json") as process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def test_jobs_go_through_slurm(project: Project, cluster: Cluster, through_slurm: str) -> None:
    assert (project.folder / RUN / "metrics.json").is_file()
    jobs = cluster.jobs()
    assert len(jobs) == 4
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert through_slurm.count("submitted with SLURM jobid") == 4
    for rule in ("generate", "prepare", "train", "evaluate"):
        assert len(cluster.jobs_of(rule)) == 1
        assert list((project.folder / "results/tiny/logs" / rule).rglob("*.log"))


def test_jobs_ask_for_what_the_config_says(cluster: Cluster, through_slurm: str) -> None:
    (train,) = cluster.jobs_of("train")
    assert train["TRES"].startswith("cpu=2,mem=700M,node=1,billing=2")
    assert train["TresPerJob"].endswith("gpu:1")
    assert train["TimeLimit"] == "00:03:00"
    (evaluate,) = cluster.jobs_of("evaluate")
    assert evaluate["TRES"] == "cpu=1,mem=600M,node=1,billing=1"
    assert "TresPerJob" not in evaluate
    assert evaluate["TimeLimit"] == "00:10:00"
    (prepare,) = cluster.jobs_of("prepare")
    assert "mem=2000M" in prepare["TRES"]
    assert prepare["TimeLimit"] == "01:00:00"
    assert {job["Partition"] for job in cluster.jobs()} == {"cpu"}


def test_a_cancelled_job_is_retried_and_resumes(project: Project, cluster: Cluster, through_slurm: str) -> None:
    undisturbed = results(project.folder)
    shutil.rmtree(project.folder / "results/tiny/bazaar/runs")
    shutil.rmtree(project.folder / "state")
    log = project.folder / "results/tiny/logs/train/bazaar/id/gru4rec/seed-1.log"
    log.unlink()
    before = len(cluster.jobs_of("train"))
    with start(project, cluster, f"{RUN}/metrics.json") as process:
        end = time.monotonic() + 120
        while not list((project.folder / "state").glob("*/*/*/checkpoint.safetensors")):
            assert time.monotonic() < end, "no checkpoint within 120 s"
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        cancelled = cluster.jobs_of("train")[-1]
        cluster.run("scancel", cancelled["JobId"])
        output, _ = process.communicate()
    assert process.returncode == 0, output
    first, second = cluster.jobs_of("train")[before:]
    assert first["JobId"] == cancelled["JobId"]
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    assert ("mem=700M" in first["TRES"], "mem=1400M" in second["TRES"]) == (True, True)
    assert "resuming at epoch" in log.read_text()
    assert results(project.folder) == undisturbed
