# What is settled before the config is read.
import io
import os
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from tessera.artifacts.fork_server import ForkServerError, ForkServers, script_name
from tessera.artifacts.logs import end_quickly

end_quickly()

# Jobs take their memory from the C library in large pages and keep what they free for the next use: batches come and go
# by the megabyte, and a kernel, of a virtual machine above all, charges much for every fresh page. An environment that
# says otherwise is left alone; other C libraries do not read it.
MALLOC = {"hugetlb": 1, "trim_threshold": 256 << 20, "mmap_threshold": 64 << 20}
os.environ.setdefault("GLIBC_TUNABLES", ":".join(f"glibc.malloc.{name}={value}" for name, value in MALLOC.items()))

# Snakemake calls Python by its path, unquoted: where a shell would cut the path, by its name.
if shlex.quote(sys.executable) != sys.executable:
    os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]))
    sys.executable = os.path.basename(sys.executable)

# The page tells what it was made by; jobs run under commands of Snakemake's own.
os.environ.setdefault("TESSERA_COMMAND", shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]))

# At every start Snakemake would load pandas, to tell tables among params from other values; these rules have texts and
# numbers alone, which are recorded the same either way.
try:
    from snakemake.persistence import PersistenceBase

    if isinstance(vars(PersistenceBase).get("_serialize_param"), property):
        PersistenceBase._serialize_param = property(lambda store: store._serialize_param_builtin)
except ImportError:  # a Snakemake that keeps its records elsewhere
    pass


def end_gracefully(scheduler, *_):
    """End when the jobs that run have ended.

    Asked to end while it chooses jobs, Snakemake would wait for a lock that it holds itself, for ever.
    """
    scheduler._user_kill = "graceful"
    # from a thread: the lock of the semaphore may be this one's, too
    threading.Thread(target=scheduler._open_jobs.release, daemon=True).start()


# A closed terminal ends a run as it is ended otherwise; Snakemake would leave its lock and its jobs behind.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))

# Snakemake has loaded it by now; one that has not ends in another way
scheduler = getattr(sys.modules.get("snakemake.scheduling.job_scheduler"), "JobScheduler", None)
if hasattr(scheduler, "exit_gracefully"):
    scheduler.exit_gracefully = end_gracefully


# Jobs of one thread are forked from a process that has imported what they need: most of what a small job does.
# Who looks for a mistake (--debug) speaks with the job itself.
FORKS = workflow.is_main_process and not getattr(workflow.execution_settings, "debug", False)
FORK_SERVERS = ForkServers(["snakemake.script"]) if FORKS else None
MATHEMATICS = ["OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB", "NUMEXPR"]


def forks(start):
    """A way to do a script's job, in place of Snakemake's own, which starts a Python."""

    def execute(job, script, edit=False):
        server = FORK_SERVERS.of(script_name(Path(script)))
        elsewhere = job.conda_env or job.container_img or job.env_modules
        if server is None or elsewhere or job.threads != 1:
            return start(job, script, edit)
        # the variables that Snakemake gives a job
        environment = os.environ | {f"{library}_NUM_THREADS": "1" for library in MATHEMATICS}
        if folder := job.resources.get("tmpdir"):
            environment |= dict.fromkeys(["TMPDIR", "TMP", "TEMPDIR", "TEMP"], folder)
        try:
            with server.job(script, environment, Path.cwd()) as forked:
                with benchmarked(forked.pid, job.bench_record) if job.bench_record else nullcontext():
                    code = forked.run()
        except ForkServerError:
            return start(job, script, edit)
        if code:
            raise subprocess.CalledProcessError(code, [sys.executable, script])

    return execute


if FORK_SERVERS is not None:
    try:
        from snakemake.benchmark import benchmarked
        from snakemake.script import PythonScript

        PythonScript.execute_script = forks(PythonScript.execute_script)
    except (ImportError, AttributeError):  # a Snakemake that starts scripts in another way
        FORK_SERVERS = None


def start_server_early(jobs):
    """Start what forks jobs with language models, where some will run here, beside the jobs that come before them."""
    if FORK_SERVERS is not None and workflow.local_exec and not workflow.deployment_settings.deployment_method:
        FORK_SERVERS.start_early(os.path.basename(job.rule.script) for job in jobs if job.is_script)


def called_with():
    """What Snakemake was called with, by option: it tells the workflow only when all rules are read."""
    cli = sys.modules.get("snakemake.cli")  # without it, a program has called Snakemake
    try:
        with redirect_stderr(io.StringIO()):  # it names its profiles again
            return vars(cli.parse_args(sys.argv[1:])[1]) if cli is not None else {}
    except (Exception, SystemExit):  # as of a profile beside the folder that `--directory` has left
        return {}


CALLED = called_with() if workflow.is_main_process else {}
DRY = bool(CALLED.get("dryrun"))
# Whose devices are not known here: jobs of a cluster, those of a run that is to come, and others than the one at work.
ELSEWHERE = DRY or not workflow.is_main_process or CALLED.get("executor") not in (None, "local")


def refuse(error):
    """End before anything runs, with what is wrong with the config, or with where the workflow lies."""
    sys.exit(framed(f"ERROR: this config cannot be run:\n{error}"))
