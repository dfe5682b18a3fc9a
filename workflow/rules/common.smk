# The checked config, its runs, and the params, resources and code hashes that the stages carry.
import json
import os
import re
import sys

SOURCE = os.path.join(workflow.basedir, "src")
sys.path.insert(0, SOURCE)
# Jobs import the library from here: nothing need be installed. Waiting threads must not spin beside other jobs.
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")])))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tessera.artifacts.code import code_fingerprint
from tessera.data.files import find
from tessera.data.required import check_files, dataset_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.datasets import BazaarSource

WHERE = ", ".join(map(str, workflow.configfiles)) or "config"
try:
    CONFIG = load(config, WHERE)
    check_files(CONFIG, WHERE)
except ConfigError as error:
    sys.exit(f"ERROR: this config cannot be run:\n{error}")

ENVIRONMENT = "../envs/tessera.yaml"
DATASETS = CONFIG.experiment.datasets
GENERATED = [name for name in DATASETS if isinstance(CONFIG.datasets[name], BazaarSource)]
RUNS = {name: {run.path: run for run in CONFIG.runs(name)} for name in DATASETS}
CANDIDATES = CONFIG.evaluation.candidates


def one_of(names):
    """A wildcard constraint: exactly these names, or nothing where there are none."""
    return "|".join(map(re.escape, sorted(names))) or "(?!x)x"


wildcard_constraints:
    dataset=one_of(DATASETS),
    table=one_of(CONFIG.tables),
    system=one_of(CONFIG.systems),
    recommender=one_of({run.recommender for runs in RUNS.values() for run in runs.values()}),
    seed=r"\d+",


def canonical(value):
    """Params as sorted JSON: Snakemake compares dicts in the order of their keys."""
    return json.dumps(value, sort_keys=True)


def code(script, *modules):
    """Hash of a script, of what it imports, and of modules that it loads by name."""
    path = os.path.join(workflow.basedir, "scripts", script)
    return code_fingerprint(path, tuple(sorted(modules))) if os.path.exists(path) else "absent"


def resources(stage):
    """A stage's resources; memory doubles at every attempt, and `gpu` is asked for only where it is wanted."""
    wanted = getattr(CONFIG.resources, stage)
    found = {"mem_mb": lambda wildcards, attempt: wanted.mem_mb * 2 ** (attempt - 1), "runtime": wanted.runtime}
    return found | ({"gpu": wanted.gpu} if wanted.gpu else {})


def dataset_settings(wildcards):
    """What reading or generating a dataset depends on: not its cleaning, save the share of bad rows, nor its split."""
    settings = CONFIG.datasets[wildcards.dataset].model_dump(mode="json", exclude={"cleaning", "split"})
    return canonical(settings | {"max_rejected": CONFIG.datasets[wildcards.dataset].cleaning.max_rejected})


def preparation_settings(wildcards):
    """How a log becomes a dataset."""
    settings = CONFIG.datasets[wildcards.dataset].model_dump(mode="json", include={"cleaning", "split"})
    settings["cleaning"].pop("max_rejected")
    return canonical(settings)


def run_of(wildcards):
    """The run that the wildcards name."""
    return RUNS[wildcards.dataset][f"{wildcards.system}/{wildcards.recommender}/seed-{wildcards.seed}"]


def run_modules(run):
    """Library modules that a run loads by name."""
    if run.backbone is None:
        return [f"tessera.recommenders.backbones.{run.method.recommender}"]
    encoders = {"ids": "ids", "table": "table"}
    return [
        f"tessera.recommenders.backbones.{run.backbone.kind}",
        f"tessera.recommenders.item_encoders.{encoders[run.method.items.kind]}",
    ]


def run_table(wildcards):
    """The item table that a run reads, as a named input."""
    items = getattr(run_of(wildcards).method, "items", None)
    if getattr(items, "kind", None) != "table":
        return {}
    return {"table": f"results/{wildcards.dataset}/tables/{items.table}.parquet"}


def table_source(wildcards):
    """What an item table is made from, as a named input."""
    table = CONFIG.tables[wildcards.table]
    if table.recipe == "vectors":
        return {"source": str(find(table.path))}
    return {"source": f"results/{wildcards.dataset}/raw/latents.parquet"}


def source_modules(dataset):
    """The library module of a dataset's source, which is loaded by name."""
    source = CONFIG.datasets[dataset].source
    return ["tessera.data.sources." + ("amazon" if source.startswith("amazon_") else source)]


def stored_candidates(wildcards):
    """The candidates file, under a sampled protocol, as a named input."""
    if CANDIDATES.kind == "full":
        return {}
    return {"candidates": f"results/{wildcards.dataset}/data/candidates.parquet"}


def published_candidates(wildcards):
    """The published negatives, where the config names a file."""
    return {"published": str(find(CANDIDATES.path))} if CANDIDATES.kind == "file" else {}


def evaluation_settings(run=None):
    """What judging a run depends on."""
    evaluation = CONFIG.evaluation.model_dump(mode="json")
    return canonical({"evaluation": evaluation} | ({"run": run.model_dump(mode="json")} if run else {}))


def run_files(dataset, name):
    """A file of every run on a dataset."""
    return [f"results/{dataset}/runs/{path}/{name}" for path in all_runs(dataset)]


def all_runs(dataset):
    """Folders of the runs on a dataset, the oracle's last where the truth is known."""
    return [*RUNS[dataset], *(["oracle/oracle/seed-0"] if dataset in GENERATED else [])]


def every(name):
    """A file of every run on every dataset."""
    return [path for dataset in DATASETS for path in run_files(dataset, name)]


def histories():
    """The training curves of every run."""
    return [f"results/{name}/runs/{path}/history.jsonl" for name in DATASETS for path in RUNS[name]]


def table_settings(wildcards):
    """What a metric table depends on besides the evaluations."""
    order = list(dict.fromkeys(path.rpartition("/")[0] for path in all_runs(wildcards.dataset)))
    return canonical(
        {
            "evaluation": CONFIG.evaluation.model_dump(mode="json"),
            "significance": CONFIG.significance.model_dump(mode="json"),
            "dataset": wildcards.dataset,
            "order": order,
        }
    )


def report_settings():
    """What the page depends on besides its inputs; `resources` change no result, and so are not shown."""
    return canonical(
        {
            "report": CONFIG.report.model_dump(mode="json"),
            "datasets": DATASETS,
            "runs": {dataset: all_runs(dataset) for dataset in DATASETS},
            "config": {key: value for key, value in config.items() if key != "resources"},
        }
    )


def rule_graph():
    """The stages of this config and what flows between them, as a Mermaid flow chart."""
    methods = [run.method for runs in RUNS.values() for run in runs.values()]
    first = (["generate"] if GENERATED else []) + (["ingest"] if set(DATASETS) - set(GENERATED) else [])
    edges = [(source, "prepare") for source in first]
    edges += [("prepare", "train"), ("prepare", "evaluate"), ("train", "evaluate")]
    if any(getattr(getattr(method, "items", None), "kind", None) == "table" for method in methods):
        edges += [("prepare", "table"), ("table", "train"), ("table", "evaluate")]
        if any(table.recipe == "latent" for table in CONFIG.tables.values()):
            edges += [("generate", "table")]
    judged = ["evaluate"]
    if GENERATED:
        edges += [("generate", "oracle"), ("prepare", "oracle")]
        judged.append("oracle")
    if CANDIDATES.kind != "full":
        edges += [("prepare", "candidates")] + [("candidates", stage) for stage in judged]
    edges += [(stage, target) for stage in judged for target in ("tables", "report")]
    edges += [("prepare", "tables"), ("prepare", "report"), ("train", "report"), ("tables", "report")]
    edges += [("rulegraph", "report")]
    return "\n".join(["flowchart TB", *(f"    {source} --> {target}" for source, target in edges)])
