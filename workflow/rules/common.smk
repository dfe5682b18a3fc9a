# The checked config, its runs, and the params, resources and code hashes that the stages carry.
import hashlib
import json
import os
import re

# Jobs import the library from here: nothing need be installed. Waiting threads must not spin beside other jobs.
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")])))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tessera.artifacts.code import code_fingerprint
from tessera.ctr.kinds import MODELS as CTR_MODULES
from tessera.data.files import find, model_files
from tessera.data.required import check_files, check_first_lines, dataset_files
from tessera.embedding.task import RECIPES
from tessera.quantization.task import QUANTIZERS
from tessera.settings.config import load
from tessera.settings.clicks.retrieval_base import Retrieval
from tessera.settings.sources.bazaar import BazaarSource
from tessera.settings.DROP import TRAINED_TABLES
from tessera.settings.language import BuiltModel, FolderModel

WHERE = ", ".join(map(str, workflow.configfiles)) or "config"
try:
    CONFIG = load(config, WHERE)
    check_files(CONFIG, WHERE)
    if workflow.is_main_process:  # not again in every job
        check_first_lines(CONFIG, WHERE)
except ConfigError as error:
    refuse(error)

ENVIRONMENT = "../envs/tessera.yaml"
DATASETS = CONFIG.experiment.datasets
GENERATED = [name for name in DATASETS if isinstance(CONFIG.datasets[name], BazaarSource)]
JUDGED = {name: [run.path for run in CONFIG.runs(name)] for name in DATASETS}
RUNS = {name: {run.path: run for run in CONFIG.trained(name)} for name in DATASETS}
CTR_RUNS = {run.path: run for run in CONFIG.ctr_runs()}
BUILT = [name for name, model in CONFIG.models.items() if isinstance(model, BuiltModel)]
MADE_TABLES = [name for name in CONFIG.tables if CONFIG.reader(name)]
TUNED_TABLES = [name for name in MADE_TABLES if isinstance(CONFIG.tables[name], TRAINED_TABLES)]
CANDIDATES = CONFIG.evaluation.candidates


def one_of(names):
    """A wildcard constraint: exactly these names, or nothing where there are none."""
    return "|".join(map(re.escape, sorted(names))) or "(?!x)x"


wildcard_constraints:
    dataset=one_of(DATASETS),
    table=one_of(CONFIG.tables),
    model=one_of(BUILT),
    captions=one_of(CONFIG.captions),
    codes=one_of(CONFIG.semantic_ids),
    system=one_of(CONFIG.systems),
    recommender=one_of({run.recommender for runs in RUNS.values() for run in runs.values()}),
    seed=r"\d+",


class Told(str):
    """A text that a rule reads; where it is long, Snakemake records it, and tells of a change, by its hash."""

    def __repr__(self):
        return str.__repr__(self) if len(self) < 500 else f"sha256:{hashlib.sha256(self.encode()).hexdigest()[:16]}"

    def __reduce__(self):
        return str, (str(self),)


def canonical(value):
    """Params as sorted JSON: Snakemake compares dicts in the order of their keys."""
    return Told(json.dumps(value, sort_keys=True))


def code(script, *modules):
    """Hash of a script, of what it imports, and of modules that it loads by name."""
    path = os.path.join(workflow.basedir, "scripts", script)
    return code_fingerprint(path, tuple(sorted(modules))) if os.path.exists(path) else "absent"


def resources(stage):
    """A stage's resources; memory doubles at every attempt, and `gpu` is asked for only where it is wanted."""
    wanted = getattr(CONFIG.resources, stage)
    found = {"mem_mb": lambda wildcards, attempt: wanted.mem_mb * 2 ** (attempt - 1), "runtime": wanted.runtime}
    # no resource, but the way to tell a script which attempt it is
    found |= {"attempt": lambda wildcards, attempt: attempt}
    return found | ({"gpu": wanted.gpu} if wanted.gpu else {})


def dataset_settings(wildcards):
    """What reading or generating a dataset depends on: not its cleaning, save the share of bad rows, split or prompt."""
    settings = CONFIG.datasets[wildcards.dataset].model_dump(mode="json", exclude={"cleaning", "split", "prompt"})
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
        return [f"tessera.recommenders.{'backbones.' if run.heuristic else ''}{run.method.recommender}"]
    found = [
        f"tessera.recommenders.backbones.{run.backbone.kind}",
        f"tessera.recommenders.item_encoders.{run.method.items.kind}",
    ]
    return found + (["tessera.recommenders.backbones.two_views"] if run.method.items.kind == "dual_view" else [])


def table_files(dataset, names):
    """Item tables."""
    return [f"results/{dataset}/tables/{name}.parquet" for name in names]


def run_inputs(wildcards):
    """What a run reads besides the dataset, as named inputs: item tables, semantic IDs, a model that is built."""
    run = run_of(wildcards)
    codes = CONFIG.codes(run)
    found = {"tables": table_files(wildcards.dataset, run.tables)} if run.tables else {}
    if codes:
        folder = f"results/{wildcards.dataset}/semantic_ids/{codes}"
        found |= {"codes": f"{folder}/codes.parquet", "codebooks": f"{folder}/model.safetensors"}
    model = getattr(run.method, "model", None)
    read = built_model(wildcards, model)
    return found | ({"model_folder": read.pop("model")} if "model" in read else {}) | read


def run_teacher(wildcards):
    """The run whose item vectors a run is aligned to, as a named input."""
    teacher = CONFIG.teacher(run_of(wildcards))
    return {"teacher": f"results/{wildcards.dataset}/runs/{teacher.path}/model.safetensors"} if teacher else {}


def prompt_settings(dataset):
    """How the items of a dataset are told to a model."""
    return CONFIG.datasets[dataset].prompt.model_dump(mode="json")


def built_model(wildcards, name):
    """The folder of a model that is built on the spot, or the files of one that is there, as a named input."""
    model = CONFIG.models.get(name)
    if isinstance(model, FolderModel):
        return {"model_files": [str(path) for path in model_files(find(model.folder))]}
    return {"model": f"results/{wildcards.dataset}/models/{name}"} if name in BUILT else {}


def pretraining_settings(wildcards):
    """What making a model on the spot depends on."""
    model = CONFIG.models[wildcards.model].model_dump(mode="json")
    source = CONFIG.datasets[wildcards.dataset].source
    return canonical({"model": model, "prompt": prompt_settings(wildcards.dataset), "source": source})


def captioning_settings(wildcards):
    """What captions depend on besides the model's weights."""
    captions = CONFIG.captions[wildcards.captions]
    model = CONFIG.models[captions.model].model_dump(mode="json")
    said = captions.model_dump(mode="json")
    return canonical({"captions": said, "model": model, "prompt": prompt_settings(wildcards.dataset)})


def read_inputs(wildcards):
    """What a table that a model makes is read from: captions, and the model where it is built."""
    reader = CONFIG.reader(wildcards.table)
    captions = [f"results/{wildcards.dataset}/captions/{name}.parquet" for name in reader.captions]
    return built_model(wildcards, reader.model) | ({"captions": captions} if captions else {})


def start_embedder(wildcards):
    """The embedder that a crrl table goes on from, as a named input."""
    start = getattr(CONFIG.tables[wildcards.table], "start", None)
    return {"embedder": f"results/{wildcards.dataset}/embedders/{start}/model.safetensors"} if start else {}


def own_embedder(wildcards):
    """The embedder of a table, where it has one, as a named input."""
    if wildcards.table not in TUNED_TABLES:
        return {}
    return {"embedder": f"results/{wildcards.dataset}/embedders/{wildcards.table}/model.safetensors"}


FINISH = ("pca", "whiten", "l2", "shuffle")
"""Keys of a recipe that training does not read."""


def task_settings(wildcards, without=()):
    """A recipe with its names resolved."""
    recipe = CONFIG.tables[wildcards.table]
    reader = CONFIG.reader(wildcards.table)
    kept = lambda settings: {k: v for k, v in settings.model_dump(mode="json").items() if k not in without}
    task = {"table": kept(recipe), "model": CONFIG.models[reader.model].model_dump(mode="json")}
    task |= {"start": kept(reader)} if recipe.recipe == "crrl" else {}
    return canonical(task | {"prompt": prompt_settings(wildcards.dataset)})


def recipe_modules(table):
    """The library module of a recipe, which is loaded by name."""
    return [RECIPES[CONFIG.tables[table].recipe]]


def read_codes():
    """Semantic IDs that runs read."""
    if any(run.semantic_ids for run in CTR_RUNS.values()):
        return [CONFIG.ctr.semantic_ids]
    return list(dict.fromkeys(name for runs in RUNS.values() for run in runs.values() if (name := CONFIG.codes(run))))


def read_tables():
    """Item tables that runs read, or that semantic IDs are made of."""
    read = [name for runs in RUNS.values() for run in runs.values() for name in run.tables]
    return list(dict.fromkeys(read + [name for codes in read_codes() for name in CONFIG.quantized(codes)]))


def diagnosed_tables():
    """Item tables with one row an item, which can be judged before a recommender learns from them."""
    return [name for name in read_tables() if CONFIG.tables[name].recipe != "attributes"]


def quantizer_inputs(wildcards):
    """What semantic IDs are made of, as named inputs: item tables, or a file of codes."""
    codes = CONFIG.semantic_ids[wildcards.codes]
    if codes.quantizer == "given":
        return {"source": str(find(codes.path))}
    return {"tables": table_files(wildcards.dataset, codes.tables)}


def tuned_tables():
    """Tables that runs read, or start from, whose embedder is trained."""
    found = []
    for name in read_tables():
        while name is not None:
            found += [name] if name in TUNED_TABLES else []
            name = getattr(CONFIG.tables[name], "start", None)
    return list(dict.fromkeys(found))


def read_captions():
    """Captions that tables of the experiment read."""
    return list(dict.fromkeys(c for name in read_tables() if name in MADE_TABLES for c in CONFIG.reader(name).captions))


def quantizer_settings(wildcards):
    """How item tables become codes."""
    return canonical({"settings": CONFIG.semantic_ids[wildcards.codes].model_dump(mode="json")})


def quantizer_modules(codes):
    """The library module of a quantiser, which is loaded by name."""
    return [QUANTIZERS[CONFIG.semantic_ids[codes].quantizer]]


def table_source(wildcards):
    """What an item table is made from, as a named input."""
    table = CONFIG.tables[wildcards.table]
    if table.recipe == "vectors":
        return {"source": str(find(table.path))}
    if table.recipe == "collaborative":
        run = CONFIG.collaborative(wildcards.table)
        data = f"results/{wildcards.dataset}/data"
        counted = {name: f"{data}/{name}.parquet" for name in ("interactions", "users")}
        return {"source": f"results/{wildcards.dataset}/runs/{run.path}/model.safetensors"} | counted
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
    return [*JUDGED[dataset], *(["oracle/oracle/seed-0"] if dataset in GENERATED else [])]


def every(name):
    """A file of every run on every dataset."""
    return [path for dataset in DATASETS for path in run_files(dataset, name)]


def histories():
    """The training curves of every run."""
    return [f"results/{name}/runs/{path}/history.jsonl" for name in DATASETS for path in JUDGED[name]]


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


def ctr_run(wildcards):
    """The click-through run that the wildcards name."""
    return CTR_RUNS[f"{wildcards.name}/seed-{wildcards.seed}"]


def ctr_codes(wildcards):
    """The semantic IDs that a click-through run reads, as named inputs."""
    return ctr_codes_of(wildcards, ctr_run(wildcards))


def ctr_judged_codes(wildcards):
    """Those that judging it reads: its own, or the reference's."""
    return ctr_codes_of(wildcards, ctr_run(wildcards), ctr_reference(wildcards))


def ctr_codes_of(wildcards, *runs):
    """The semantic IDs that one of the runs reads, as named inputs."""
    if not any(run is not None and run.semantic_ids for run in runs):
        return {}
    folder = f"results/{wildcards.dataset}/semantic_ids/{CONFIG.ctr.semantic_ids}"
    return {"codes": f"{folder}/codes.parquet", "codebooks": f"{folder}/model.safetensors"}


def ctr_reference(wildcards):
    """The run to which the retrieval of another of the same seed is compared, None where nothing is retrieved."""
    name, run = CONFIG.ctr.reference, ctr_run(wildcards)
    return CTR_RUNS[f"{name}/seed-{run.seed}"] if name and isinstance(run.model, Retrieval) else None


def ctr_reference_model(wildcards):
    """Weights of that run, as a named input."""
    found = ctr_reference(wildcards)
    return {"reference": f"results/{wildcards.dataset}/ctr/runs/{found.path}/model.safetensors"} if found else {}


def ctr_evaluation_settings(wildcards):
    """What judging a click-through run depends on."""
    cfg = {
        "run": ctr_run(wildcards).model_dump(mode="json"),
        "evaluation": CONFIG.ctr.evaluation.model_dump(mode="json"),
    }
    reference = ctr_reference(wildcards)
    return canonical(cfg | ({"reference": reference.model_dump(mode="json")} if reference else {}))


def ctr_modules(wildcards):
    """Library modules that judging a click-through run loads by name."""
    runs = [run for run in (ctr_run(wildcards), ctr_reference(wildcards)) if run is not None]
    return [CTR_MODULES[run.model.model] for run in runs]


def lifelong(dataset):
    """Whether the true chance of every click is known."""
    return getattr(CONFIG.datasets[dataset], "lifelong", None) is not None


def ctr_paths(dataset):
    """Folders of the click-through runs on a dataset, the oracle's last where the truth is known."""
    return [*CTR_RUNS, *(["oracle/seed-0"] if lifelong(dataset) else [])]


def ctr_files(dataset, name):
    """A file of every click-through run on a dataset."""
    return [f"results/{dataset}/ctr/runs/{path}/{name}" for path in ctr_paths(dataset)]


def ctr_table_settings(wildcards):
    """What the table of click-through models depends on besides the runs."""
    evaluation = CONFIG.ctr.evaluation.model_dump(mode="json")
    return canonical({"dataset": wildcards.dataset, "against": CONFIG.ctr.against, "evaluation": evaluation})


def ctr_report_settings():
    """What the page depends on besides its inputs."""
    return canonical(
        {
            "report": CONFIG.report.model_dump(mode="json"),
            "evaluation": CONFIG.ctr.evaluation.model_dump(mode="json"),
            "against": CONFIG.ctr.against,
            "datasets": DATASETS,
            "runs": {dataset: ctr_paths(dataset) for dataset in DATASETS},
            "codes": (read_codes() or [None])[0],
            "config": {key: value for key, value in config.items() if key != "resources"},
        }
    )


def table_edges():
    """The part of the graph that makes item tables."""
    names = read_tables()
    if not names:
        return []
    made = [name for name in names if name in MADE_TABLES]
    stages = (["embed"] if made else []) + (["table"] if len(made) < len(names) else [])
    edges = [("prepare", stage) for stage in stages]
    edges += [(stage, target) for stage in stages for target in ("train", "evaluate", "diagnose")]
    edges += [("prepare", "diagnose"), ("diagnose", "report")]
    if any(CONFIG.tables[name].recipe == "collaborative" for name in names):
        edges += [("train", "table")]
    if any(CONFIG.tables[name].recipe == "latent" for name in names):
        edges += [("generate", "table")]
    if not made:
        return edges
    readers = ["embed"] + (["tune"] if tuned_tables() else [])
    edges += [("prepare", "tune"), ("tune", "embed"), ("tune", "report")] if tuned_tables() else []
    captions = read_captions()
    edges += [("prepare", "caption"), ("caption", "report")] if captions else []
    edges += [("caption", reader) for reader in readers] if captions else []
    if {CONFIG.reader(name).model for name in made} & set(BUILT):
        edges += [("prepare", "pretrain")] + [("pretrain", reader) for reader in readers]
    if {CONFIG.captions[name].model for name in captions} & set(BUILT):
        edges += [("prepare", "pretrain"), ("pretrain", "caption")]
    return list(dict.fromkeys(edges))


def code_edges():
    """The part of the graph that makes semantic IDs, and what networks of their own read besides them."""
    if not read_codes():
        return []
    tables = [name for codes in read_codes() for name in CONFIG.quantized(codes)]
    stages = dict.fromkeys(["prepare", *("embed" if name in MADE_TABLES else "table" for name in tables)])
    edges = [(stage, target) for stage in stages for target in ("quantize", "health")]
    edges += [("quantize", target) for target in ("health", "train", "evaluate", "report")] + [("health", "report")]
    read = {getattr(run.method, "model", None) for runs in RUNS.values() for run in runs.values()}
    return edges + ([("pretrain", "train"), ("pretrain", "evaluate")] if read & set(BUILT) else [])


def ctr_edges():
    """The stages of click-through rate."""
    first = (["generate"] if GENERATED else []) + (["ingest"] if set(DATASETS) - set(GENERATED) else [])
    edges = [(source, "prepare") for source in first] + [("prepare", "samples")]
    known = {"train": "train_ctr", "evaluate": "evaluate_ctr", "report": "report_ctr"}
    edges += [(known.get(a, a), known.get(b, b)) for a, b in table_edges() + code_edges()]
    # tables reach the models as codes alone, and are not told of on the page
    edges = [e for e in edges if "diagnose" not in e and (e[0] in ("quantize", "samples") or not e[1].endswith("_ctr"))]
    stages = ["train_ctr", "evaluate_ctr"]
    if any(map(lifelong, DATASETS)):
        stages.append("oracle_ctr")
        edges += [("generate", "oracle_ctr"), ("prepare", "oracle_ctr")]
    edges += [("samples", stage) for stage in stages] + [("train_ctr", "evaluate_ctr")]
    edges += [(stage, "tables_ctr") for stage in stages[1:]]
    edges += [(stage, "report_ctr") for stage in ("prepare", "samples", *stages, "tables_ctr", "rulegraph")]
    return edges + ([("health", "report_ctr")] if read_codes() else [])


def rule_graph():
    """The stages of this config and what flows between them, as a Mermaid flow chart."""
    if CONFIG.task == "ctr":
        return Told("\n".join(["flowchart TB", *(f"    {a} --> {b}" for a, b in dict.fromkeys(ctr_edges()))]))
    methods = [run.method for runs in RUNS.values() for run in runs.values()]
    first = (["generate"] if GENERATED else []) + (["ingest"] if set(DATASETS) - set(GENERATED) else [])
    edges = [(source, "prepare") for source in first]
    edges += [("prepare", "train"), ("prepare", "evaluate"), ("train", "evaluate")]
    edges += table_edges() + code_edges()
    judged = ["evaluate"]
    if GENERATED:
        edges += [("generate", "oracle"), ("prepare", "oracle")]
        judged.append("oracle")
    if CANDIDATES.kind != "full":
        edges += [("prepare", "candidates")] + [("candidates", stage) for stage in judged]
    edges += [(stage, target) for stage in judged for target in ("tables", "report")]
    edges += [("prepare", "tables"), ("prepare", "report"), ("train", "report"), ("tables", "report")]
    edges += [("rulegraph", "report")]
    edges = dict.fromkeys(edges)
    return Told("\n".join(["flowchart TB", *(f"    {source} --> {target}" for source, target in edges)]))
