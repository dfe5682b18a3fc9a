"""A real Slurm of one node, brought up for the tests and taken down after: munged, slurmctld and slurmd.

Everything lies in a folder of its own (sockets, ports, state); only a link at /etc/slurm/slurm.conf leads there, since
jobs are started without SLURM_CONF. A machine that has a configuration of its own there is left alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class Unavailable(RuntimeError):
    """A cluster cannot be started here; the text says why."""


LINK = Path("/etc/slurm/slurm.conf")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=60
MinJobAge=1800
KillWait=10
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:fake:1 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=gpu Nodes={host} MaxTime=1-00:00:00 State=UP
"""


@dataclass
class Cluster:
    """The running cluster, through its command line."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Standard output of a Slurm command."""
        return subprocess.run(
            ["timeout", "-s", "KILL", "30", *command],
            env=self.environment,
            text=True,
            check=True,
            capture_output=True,
        ).stdout

    def jobs(self) -> list[dict[str, str]]:
        """What the controller knows of every job, finished ones included, in order of submission."""
        found = []
        for line in self.run("scontrol", "--oneliner", "show", "jobs").splitlines():
            pairs = (word.partition("=") for word in line.split())
            if line.startswith("JobId="):
                found.append({name: value for name, _, value in pairs})
        return sorted(found, key=lambda job: int(job["JobId"]))

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        """The jobs of a rule: Snakemake writes its name into the comment."""
        return [job for job in self.jobs() if job.get("Comment", "").startswith(f"rule_{rule}_")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def why_not() -> str:
    """Why a cluster cannot be started here; empty when it can."""
    if os.geteuid() != 0:
        return "starting Slurm needs root"
    if not Path("/etc/debian_version").exists():
        return "the recipe is for Debian"
    if absent := [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
        return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)"
    if LINK.exists():
        return f"this machine has a Slurm of its own ({LINK})"
    return ""


def start_munge(folder: Path) -> None:
    """The daemon that signs messages, under its own user, with a key of its own."""
    user = pwd.getpwnam("munge")
    folder.mkdir(mode=0o755)
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    for path in (folder, folder / "key"):
        os.chown(path, user.pw_uid, user.pw_gid)
    command = ["/usr/sbin/munged", f"--key-file={folder}/key", f"--socket={folder}/socket"]
    command += [f"--{name}={folder}/{name.removesuffix('-file')}" for name in ("pid-file", "log-file", "seed-file")]
    subprocess.run(command, user="munge", group="munge", extra_groups=[], check=True, timeout=30, capture_output=True)


def stop(pid_file: Path) -> None:
    """End a daemon by its own pid file, and wait for it."""
    if not pid_file.is_file():
        return
    pid = int(pid_file.read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            for _ in range(50):
                time.sleep(0.1)
                os.kill(pid, 0)
        except ProcessLookupError:
            return


@contextmanager
def running() -> Iterator[Cluster]:
    """Slurm on this machine with one pretended GPU.

    Raises:
        Unavailable: it cannot be started here.
    """
    if reason := why_not():
        raise Unavailable(reason)
    # not below pytest's folder: the munge user could not enter it
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    gpu = folder / "gpu0"
    try:
        os.mknod(gpu, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError as error:
        shutil.rmtree(folder)
        raise Unavailable(f"cannot make a device file to stand in for a GPU: {error}") from None
    host = socket.gethostname().split(".")[0]
    memory = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line).split()[1])
    conf = CONF.format(
        host=host, folder=folder, munge=folder / "munge", control_port=free_port(), node_port=free_port(),
        cpus=os.cpu_count(), memory=memory // 1024 - 512,
    )  # fmt: skip
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu Type=fake File={gpu}\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    LINK.parent.mkdir(exist_ok=True)
    LINK.unlink(missing_ok=True)  # left behind by tests that were killed
    LINK.symlink_to(folder / "slurm.conf")
    environment = dict(os.environ, SLURM_CONF=str(folder / "slurm.conf"))
    environment["PATH"] += ":/usr/sbin"
    found = Cluster(folder, environment)
    try:
        start_munge(folder / "munge")
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon, "-f", str(folder / "slurm.conf")], env=environment, check=True, timeout=30)
        wait_until_idle(found)
        yield found
        subprocess.run(["scancel", "--user=root"], env=environment, check=False, timeout=30)
    finally:
        for pid_file in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            stop(folder / pid_file)
        LINK.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_idle(cluster: Cluster) -> None:
    """Until the node takes jobs."""
    end = time.monotonic() + 60
    state = ""
    while time.monotonic() < end:
        state = cluster.run("sinfo", "--noheader", "-o", "%T")
        if "idle" in state:
            return
        time.sleep(0.5)
    logs = "\n".join((cluster.folder / f"{name}.log").read_text()[-2000:] for name in ("slurmctld", "slurmd"))
    raise AssertionError(f"the node does not come up: {state}\n{logs}")
