# The checked config, its plan, and what rules take of it. The library decides; here stand only Snakemake's forms.
import os
import re

# Jobs import the library from here: nothing need be installed. Waiting threads must not spin beside other jobs.
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")])))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tessera.artifacts.code import code_fingerprint, keep_parses, templates_fingerprint
from tessera.data.files import find
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.params import Told
from tessera.plan.owner import check_owner, write_owner
from tessera.plan.picture import flow_chart
from tessera.plan.first_lines import check_first_lines
from tessera.plan.required import check_files, dataset_files, picture_names
from tessera.plan.targets import check_targets, check_writable
from tessera.settings.config import load
from tessera.settings.files import command_line, experiment_name, merged

keep_parses(Path(".snakemake/tessera/parses.json"))

GIVEN = workflow.config_settings.config_args or []
WHERE = ", ".join([*map(str, workflow.configfiles), *["--config"] * bool(GIVEN)]) or "config"
try:
    config.update(merged(config, command_line(GIVEN)))
    CONFIG = load(config, WHERE, experiment_name(workflow.configfiles))
    PLAN = Plan(CONFIG)
    check_files(PLAN, WHERE, ELSEWHERE)
    if workflow.is_main_process:  # not again in every job
        check_owner(Jobs(PLAN).root, workflow.configfiles, WHERE)
        check_first_lines(PLAN, WHERE)
        check_targets(Jobs(PLAN), CALLED.get("targets") or [], WHERE)
        if not DRY:
            check_writable(Jobs(PLAN).root, WHERE)
except ConfigError as error:
    refuse(error)

JOBS = Jobs(PLAN)


pathvars:
    results=JOBS.root,


if workflow.is_main_process:
    JOBS.look_again()
ENVIRONMENT = "../envs/tessera.yaml"
DATASETS = CONFIG.experiment.datasets
GENERATED = [name for name in DATASETS if PLAN.generated(name)]
MADE_TABLES = [name for name in CONFIG.tables if PLAN.reader(name)]
CANDIDATES = CONFIG.evaluation.candidates


def one_of(names):
    """A wildcard constraint: exactly these names, or nothing where there are none."""
    return "|".join(map(re.escape, sorted(names))) or "(?!x)x"


wildcard_constraints:
    dataset=one_of([*DATASETS, *CONFIG.finals]),
    table=one_of(CONFIG.tables),
    model=one_of(filter(PLAN.built, CONFIG.models)),
    captions=one_of(CONFIG.captions),
    codes=one_of(CONFIG.semantic_ids),
    system=one_of(CONFIG.systems),
    recommender=one_of({run.recommender for run in PLAN.trained.values()}),
    seed=r"\d+",
    trial=r"\d+",
    round=r"\d+",


# ---------------------------------------------------------------- nouns that wildcards name
NOUNS = {
    "model": lambda w: w.model,
    "captions": lambda w: w.captions,
    "embedder": lambda w: w.table,
    "table": lambda w: w.table,
    "semantic_ids": lambda w: w.codes,
    "run": lambda w: f"{w.system}/{w.recommender}/seed-{w.seed}",
    "click_run": lambda w: f"{w.name}/seed-{w.seed}",
}


def noun(kind, wildcards):
    """The noun of a kind that the wildcards name."""
    return Noun(kind, NOUNS[kind](wildcards))


def inputs(kind, **options):
    """Named inputs: what the job of a noun reads besides the dataset."""
    return lambda wildcards: JOBS.inputs(noun(kind, wildcards), wildcards.dataset, **options)


def settings(kind):
    """Params: what the job of a noun depends on."""
    return lambda wildcards: JOBS.settings(noun(kind, wildcards), wildcards.dataset)


def code(script, *modules):
    """Hash of a script, of what it imports, and of modules that it loads by name."""
    return code_fingerprint(os.path.join(workflow.basedir, "scripts", script), tuple(sorted(modules)))


def noun_code(script, kind):
    """Params: the code of the job of a noun, with the modules of its kinds."""
    return lambda wildcards: code(script, *JOBS.modules(noun(kind, wildcards)))


def resources(stage, needs_gpu=None):
    """A stage's resources; memory grows with attempts, and `gpu` is asked for only where it is wanted.

    `needs_gpu` says of wildcards whether their job computes on one; without it all do, and with False none.
    """
    wanted = getattr(CONFIG.resources, stage)
    needs = {"mem_mb": lambda wildcards, attempt: wanted.memory(attempt), "runtime": wanted.runtime}
    # no resource, but the way to tell a script which attempt it is
    needs |= {"attempt": lambda wildcards, attempt: attempt}
    if needs_gpu is False:
        return needs
    gpu = wanted.gpu if needs_gpu is None else lambda wildcards: wanted.gpu if needs_gpu(wildcards) else 0
    return needs | ({"gpu": gpu} if wanted.gpu else {})


def trained(wildcards):
    """Whether the run, or the row of runs, that wildcards name is trained; what is counted takes no GPU."""
    run = noun("run", wildcards) if hasattr(wildcards, "seed") else exported_run(wildcards)
    return not PLAN.trained[run.name].heuristic


# ---------------------------------------------------------------- files that only some configs have
def stored_candidates(wildcards):
    """The candidates file, under a sampled protocol, as a named input."""
    if CANDIDATES.kind == "full":
        return {}
    return {"candidates": f"{JOBS.root}/{wildcards.dataset}/data/candidates.parquet"}


def drawn_users(wildcards):
    """The file of the test users that are judged, where the config names a part of them."""
    if CONFIG.evaluation.test_users is None:
        return {}
    return {"drawn": f"{JOBS.root}/{wildcards.dataset}/data/test_users.parquet"}


def published_candidates(wildcards):
    """The published negatives, where the config names a file."""
    return {"published": str(find(CANDIDATES.path))} if CANDIDATES.kind == "file" else {}


def recommended():
    """The lists that `experiment.recommend` asks for."""
    return expand(
        "{root}/{lists}.{ending}", root=JOBS.root, lists=JOBS.serving.recommended(), ending=["parquet", "csv"]
    )


def exported():
    """The folders that `experiment.export` asks for."""
    return expand("{root}/{folder}", root=JOBS.root, folder=JOBS.serving.exported())


def exported_run(wildcards):
    """The run that a folder to hand on is made of."""
    return JOBS.serving.exported_run(f"{wildcards.system}/{wildcards.recommender}")


def final():
    """The runs that `experiment.final` asks for."""
    return [JOBS.file(Noun("run", run), dataset) for dataset in CONFIG.finals for run in JOBS.final()]


def raw(name):
    """A file of the raw rows that a dataset is made of."""
    return lambda wildcards: f"{JOBS.root}/{JOBS.raw(wildcards.dataset)}/raw/{name}"
