"""The whole config: what is learned from, what is compared, how it is judged, and which runs follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tessera.settings.base import ConfigError, PresetSettings, Settings, did_you_mean, explain
from tessera.settings.ctr import CTR, CTRRun
from tessera.settings.datasets import BazaarSource, Dataset
from tessera.settings.embedding import (
    TRAINED_TABLES,
    AttributesTable,
    CRRLTable,
    HiddenTable,
    LRCLTable,
    SCFTTable,
    TextTable,
)
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.language import BuiltModel, Captions, LanguageModel, PackageModel, ReadText
from tessera.settings.recommenders import (
    Backbone,
    CrossEntropy,
    DualViewItems,
    GRU4RecSettings,
    IdItems,
    Loss,
    SASRecSettings,
    TableItems,
    Training,
)
from tessera.settings.reporting import Report
from tessera.settings.semantic_ids import MMRQVAE, GivenCodes, SemanticIds
from tessera.settings.systems import (
    BUILT_IN_SYSTEMS,
    BackboneSystem,
    MMESIDSystem,
    NetworkSystem,
    Run,
    System,
    TIGERSystem,
)

# Names become folders below results/; these are there already.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_RESERVED = {"datasets": ("benchmarks", "logs", "report", "tables"), "systems": ("oracle",)}

BACKBONE_KINDS = ("sasrec", "gru4rec", "bert4rec")

# ---------------------------------------------------------------- tables


class VectorsTable(Settings):
    """Item vectors that exist already: `.npy` (row = raw id) or Parquet (`raw_id` or `item`, and `embedding`)."""

    recipe: Literal["vectors"] = "vectors"
    path: str
    """The file, looked up like data files."""


class LatentTable(Settings):
    """The demo world's own attributes, one-hot: what a perfect reader of one channel could know."""

    recipe: Literal["latent"] = "latent"
    view: Literal["all", "text", "image"] = "all"
    """Every attribute, only those told by the text, or only those shown by the picture."""


class CollaborativeTable(Settings):
    """The item vectors of a trained ID run: what histories alone say of items that have training interactions."""

    recipe: Literal["collaborative"] = "collaborative"
    system: str = "id"
    """A system with `items: ids`."""
    backbone: str = "sasrec"
    """The backbone under which it is trained."""
    seed: int = Field(1, ge=0)
    """The seed under which it is trained."""


ItemTable = Annotated[
    VectorsTable
    | LatentTable
    | CollaborativeTable
    | TextTable
    | AttributesTable
    | HiddenTable
    | SCFTTable
    | LRCLTable
    | CRRLTable,
    Field(discriminator="recipe"),
]

# ---------------------------------------------------------------- the experiment


class Resources(Settings):
    """What a stage asks of the machine or the cluster. Results do not depend on it."""

    threads: int = Field(1, ge=1)
    """CPU threads."""
    mem_mb: int = Field(2000, ge=1)
    """Memory in MB; doubled at every retry."""
    runtime: int = Field(60, ge=1)
    """Minutes."""
    gpu: int = Field(0, ge=0)
    """GPUs."""
    retries: int = Field(0, ge=0)
    """Further attempts after a failure (not of ingest, prepare and report)."""


class StageResources(Settings):
    """Resources by stage."""

    ingest: Resources = Field(default_factory=Resources)
    """Reading raw logs, or generating the demo world."""
    prepare: Resources = Field(default_factory=Resources)
    """Cleaning and splitting; item tables that are imported; diagnostics of all of them."""
    pretrain: Resources = Field(default_factory=lambda: Resources(mem_mb=4000, runtime=720, retries=2))
    """Pre-training a model that is built on the spot."""
    caption: Resources = Field(default_factory=lambda: Resources(mem_mb=4000, runtime=720, retries=2))
    """Captions of a catalogue."""
    quantize: Resources = Field(default_factory=lambda: Resources(mem_mb=3000, runtime=240, retries=2))
    """Making semantic IDs, and what is told of them."""
    tune: Resources = Field(default_factory=lambda: Resources(mem_mb=6000, runtime=720, retries=2))
    """Training an embedder: SCFT, LRCL, CRRL."""
    embed: Resources = Field(default_factory=lambda: Resources(mem_mb=4000, runtime=240, retries=1))
    """Embedding a catalogue."""
    train: Resources = Field(default_factory=lambda: Resources(mem_mb=3000, runtime=720, retries=2))
    """Training one run."""
    evaluate: Resources = Field(default_factory=lambda: Resources(mem_mb=3000, retries=1))
    """Judging one run."""
    report: Resources = Field(default_factory=Resources)
    """Metric tables and the page."""


class Experiment(Settings):
    """What is compared: every system under every backbone, on every dataset, for every seed."""

    datasets: list[str] = Field(min_length=1)
    """Names under `datasets`."""
    systems: list[str] = Field(default_factory=lambda: ["popular", "item_knn", "markov", "id"], min_length=1)
    """Names under `systems`, or the built-in popular, item_knn, markov and id."""
    backbones: list[str] = Field(default_factory=lambda: ["sasrec"], min_length=1)
    """Names under `backbones`, or the built-in sasrec, gru4rec and bert4rec."""
    seeds: list[int] = Field(default_factory=lambda: [1, 2, 3], min_length=1)
    """One training of every run a seed."""


BUILT_IN_MODELS: dict[str, Any] = {"small": {"built": "qwen2.5-vl"}}


def _preset_everywhere(data: dict[str, Any]) -> dict[str, Any]:
    """`preset: official` in every section that knows it and does not name another."""

    def given(section: Any, known: Mapping[str, type[Settings]], key: str) -> Any:
        if not isinstance(section, Mapping):
            return section
        kinds = {name: known.get(str(value.get(key))) for name, value in section.items() if isinstance(value, Mapping)}
        fits = {name for name, kind in kinds.items() if kind is not None and issubclass(kind, PresetSettings)}
        return {name: {"preset": "official", **value} if name in fits else value for name, value in section.items()}

    recipes: dict[str, type[Settings]] = {"scft": SCFTTable, "lrcl": LRCLTable, "crrl": CRRLTable}
    data["tables"] = given(data.get("tables"), recipes, "recipe") or {}
    quantizers: dict[str, type[Settings]] = {"mm_rq_vae": MMRQVAE}
    data["semantic_ids"] = given(data.get("semantic_ids"), quantizers, "quantizer") or {}
    backbones: dict[str, type[Settings]] = {"sasrec": SASRecSettings, "gru4rec": GRU4RecSettings}
    data["backbones"] = given(data["backbones"], backbones, "kind")
    systems = {}
    for name, system in data["systems"].items():
        items = system.get("items") if isinstance(system, Mapping) else None
        if isinstance(items, Mapping) and "table" in items and "semantic_ids" not in items:
            system = {**system, "items": {"preset": "official", **items}}
        elif isinstance(system, Mapping) and system.get("recommender") == "mme_sid":
            system = {"preset": "official", **system}
        systems[name] = system
    return data | {"systems": systems}


class Config(Settings):
    """A Tessera config."""

    datasets: dict[str, Dataset] = Field(min_length=1)
    """What is learned from, by name."""
    preset: Literal["correct", "official"] = "correct"
    """`official`: published habits for every table, backbone and item encoder that has some and does not say otherwise,
    so that a system and its baselines run under the same."""
    models: dict[str, LanguageModel] = Field(default_factory=dict)
    """Language and vision-language models, by name; `small`, built on the spot, is built in."""
    captions: dict[str, Captions] = Field(default_factory=dict)
    """What models say of the items, by name."""
    tables: dict[str, ItemTable] = Field(default_factory=dict)
    """Recipes for item tables, by name."""
    semantic_ids: dict[str, SemanticIds] = Field(default_factory=dict)
    """Codes that are made of item tables, by name."""
    systems: dict[str, System] = Field(default_factory=dict)
    """What is compared, by name; popular, item_knn, markov and id are built in."""
    backbones: dict[str, Backbone] = Field(default_factory=dict)
    """Backbones by name; sasrec, gru4rec and bert4rec are built in."""
    task: Literal["sequential", "ctr"] = "sequential"
    """Rank a user's next item by `systems`, or predict clicks from lifelong histories by the models of `ctr`."""
    ctr: CTR | None = None
    """Click-through rate; of `experiment` it takes the datasets and the seeds."""
    loss: Loss = Field(default_factory=CrossEntropy)
    """The loss of every trained system."""
    training: Training = Field(default_factory=Training)
    """The training loop."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    """How runs are judged."""
    significance: Significance = Field(default_factory=Significance)
    """How differences are tested."""
    report: Report = Field(default_factory=Report)
    """What the report shows."""
    resources: StageResources = Field(default_factory=StageResources)
    """What stages ask of the machine."""
    experiment: Experiment
    """What is run."""

    @model_validator(mode="before")
    @classmethod
    def _built_ins(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        systems = data.get("systems") or {}
        models = data.get("models") or {}
        if isinstance(models, Mapping):
            data["models"] = {**BUILT_IN_MODELS, **models}
        backbones = data.get("backbones") or {}
        if isinstance(systems, Mapping):
            data["systems"] = {**BUILT_IN_SYSTEMS, **systems}
        if isinstance(backbones, Mapping):
            named = {kind: {} for kind in BACKBONE_KINDS} | {k: v or {} for k, v in backbones.items()}
            data["backbones"] = {
                name: {"kind": name, **settings}
                if name in BACKBONE_KINDS and isinstance(settings, Mapping)
                else settings
                for name, settings in named.items()
            }
        return _preset_everywhere(data) if data.get("preset") == "official" else data

    @cached_property
    def problems(self) -> list[str]:
        """What a single field cannot know: names that point nowhere, overrides that do not fit."""
        found: list[str] = []

        def check(path: str, name: str, known: Mapping[str, Any]) -> None:
            if name not in known:
                found.append(f"{path}: unknown name {name!r}{did_you_mean(name, known)}")

        for index, name in enumerate(self.experiment.datasets):
            check(f"experiment.datasets.{index}", name, self.datasets)
        for index, name in enumerate(self.experiment.systems):
            check(f"experiment.systems.{index}", name, self.systems)
        for index, name in enumerate(self.experiment.backbones):
            check(f"experiment.backbones.{index}", name, self.backbones)
        for key in ("datasets", "systems", "backbones", "seeds"):
            values = getattr(self.experiment, key)
            if len(set(values)) < len(values):
                found.append(f"experiment.{key}: names something twice: {values}")
        for kind in ("datasets", "models", "captions", "tables", "semantic_ids", "systems", "backbones"):
            for name in getattr(self, kind):
                if not _NAME.fullmatch(name):
                    found.append(f"{kind}.{name}: a name is letters, digits, '-', '_' and '.', the first no '.'")
                elif name in _RESERVED.get(kind, ()):
                    found.append(f"{kind}.{name}: this name is taken by a folder of results; choose another")
        for name, backbone in self.backbones.items():
            heads = getattr(backbone, "heads", 1)
            if backbone.dim % heads:
                found.append(f"backbones.{name}.heads: {heads} does not divide dim {backbone.dim}")
            found += self._override_problems(f"backbones.{name}.training", backbone.training)
        for name, system in self.systems.items():
            if not isinstance(system, (BackboneSystem, NetworkSystem)):
                continue
            if isinstance(system, BackboneSystem):
                if isinstance(system.items, TableItems):
                    found += self._alignment_problems(name, system)
                for key, known in (("table", self.tables), ("semantic_ids", self.semantic_ids)):
                    named = getattr(system.items, key, None)
                    if named is not None:
                        check(f"systems.{name}.items.{key}", named, known)
                for index, backbone_name in enumerate(system.backbones or []):
                    check(f"systems.{name}.backbones.{index}", backbone_name, self.backbones)
            found += self._override_problems(f"systems.{name}.training", system.training)
            if len(set(system.seeds or [])) < len(system.seeds or []):
                found.append(f"systems.{name}.seeds: names something twice: {system.seeds}")
        for table_name, table in self.tables.items():
            if isinstance(table, LatentTable):
                for dataset in self.experiment.datasets:
                    if dataset in self.datasets and not isinstance(self.datasets[dataset], BazaarSource):
                        found.append(f"tables.{table_name}: latent tables need source bazaar; {dataset!r} is another")
        found += self._collaborative_problems()
        found += self._semantic_id_problems()
        found += self._dual_view_problems()
        found += self._language_problems()
        found += self._ctr_problems()
        measured = [f"{name}@{k}" for name in ("Hit", "NDCG") for k in self.evaluation.cutoffs] + ["MRR"]
        check("report.main_metric", self.report.main_metric, dict.fromkeys(measured))
        baseline = self.significance.baseline
        if not found and baseline is not None and self.task == "sequential":
            runs = {f"{run.system}/{run.recommender}": run for d in self.experiment.datasets for run in self.runs(d)}
            trained = {run.system: run for run in runs.values() if not run.heuristic}
            check("significance.baseline", baseline, runs | trained)
        return found

    def _ctr_problems(self) -> list[str]:
        lifelong = [n for n, d in self.datasets.items() if isinstance(d, BazaarSource) and d.lifelong is not None]
        if self.task == "sequential":
            return [
                f"datasets.{name}.lifelong: its log holds impressions that nobody clicked, which needs task: ctr"
                for name in self.experiment.datasets
                if name in lifelong
            ]
        if self.ctr is None:
            return ["ctr: task 'ctr' needs this section, with `models`"]
        ctr, found = self.ctr, []
        for key, value in (("baseline", ctr.baseline), ("reference", ctr.reference)):
            if value is not None and value not in ctr.models:
                found.append(f"ctr.{key}: unknown name {value!r}{did_you_mean(value, ctr.models)}")
        if ctr.reference in ctr.models and ctr.models[ctr.reference].model != "din":
            found.append(f"ctr.reference: {ctr.reference!r} has no attention over histories; choose a din")
        elif ctr.reference in ctr.models and getattr(ctr.models[ctr.reference], "window", None) is not None:
            found.append(f"ctr.reference: {ctr.reference!r} sees its window alone; give it `window: null`")
        for name in self.experiment.datasets:
            world = self.datasets.get(name)
            if not isinstance(world, BazaarSource) or world.lifelong is None or ctr.samples.source != "impressions":
                continue
            if ctr.samples.split.past < round(1 - world.lifelong.logged, 9):
                found.append(
                    f"ctr.samples.split.past: {ctr.samples.split.past}, but the log of {name!r} tells what was not "
                    f"clicked in its last {world.lifelong.logged} alone; expected {1 - world.lifelong.logged:g} or more"
                )
        for name, model in ctr.models.items():
            if not _NAME.fullmatch(name) or name == "oracle":
                found.append(f"ctr.models.{name}: a name is letters, digits, '-', '_' and '.', and not oracle")
            if self.reads_codes(name) and ctr.semantic_ids is None:
                found.append(f"ctr.models.{name}: {model.model} reads semantic IDs, but ctr.semantic_ids names none")
        if ctr.semantic_ids is None:
            return found
        if ctr.semantic_ids not in self.semantic_ids:
            hint = did_you_mean(ctr.semantic_ids, self.semantic_ids)
            return [*found, f"ctr.semantic_ids: unknown name {ctr.semantic_ids!r}{hint}"]
        for table in self.quantized(ctr.semantic_ids):
            if isinstance(self.tables.get(table), (CollaborativeTable, *TRAINED_TABLES)):
                found.append(
                    f"ctr.semantic_ids: table {table!r} learned from histories, whose cuts are not those of ctr.samples"
                )
        return found

    def reads_codes(self, model: str) -> bool:
        """Whether a click-through model is given semantic IDs."""
        assert self.ctr is not None
        settings = self.ctr.models[model]
        return settings.model == "r2led" or settings.read_codes

    def ctr_runs(self) -> list[CTRRun]:
        """Every click-through run on a dataset, defaults resolved."""
        if self.ctr is None or self.task != "ctr":
            return []
        return [
            CTRRun(
                name=name,
                seed=seed,
                model=model,
                training=self.ctr.training,
                semantic_ids=self.reads_codes(name),
                max_history=self.ctr.samples.max_history,
            )
            for name, model in self.ctr.models.items()
            for seed in self.experiment.seeds
        ]

    def _override_problems(self, path: str, override: Mapping[str, Any]) -> list[str]:
        try:
            Training.model_validate({**self.training.model_dump(), **override})
        except ValidationError as error:
            return explain(error, override, path).replace(f"{path}: ", f"{path}.").splitlines()
        return []

    def _language_problems(self) -> list[str]:
        found: list[str] = []

        def check(path: str, name: str, known: Mapping[str, Any]) -> None:
            if name not in known:
                found.append(f"{path}: unknown name {name!r}{did_you_mean(name, known)}")

        for name, model in self.models.items():
            if isinstance(model, BuiltModel) and model.hidden % (2 * model.heads):
                found.append(f"models.{name}.heads: twice {model.heads} does not divide hidden {model.hidden}")
        for name, captions in self.captions.items():
            check(f"captions.{name}.model", captions.model, self.models)
            shown = self.models.get(captions.model)
            if captions.source != "text" and isinstance(shown, PackageModel):
                found.append(f"captions.{name}.model: {captions.model!r} is a sentence encoder, which sees no pictures")
        for name, table in self.tables.items():
            if isinstance(table, CRRLTable):
                if table.start is not None:
                    check(f"tables.{name}.start", table.start, self.tables)
                    start = self.tables.get(table.start)
                    if start is not None and not (isinstance(start, LRCLTable) and start.thoughts):
                        found.append(f"tables.{name}.start: {table.start!r} is no lrcl table with thoughts")
                if table.model is not None:
                    check(f"tables.{name}.model", table.model, self.models)
            elif isinstance(table, ReadText):
                check(f"tables.{name}.model", table.model, self.models)
                if isinstance(table, HiddenTable) and isinstance(self.models.get(table.model), PackageModel):
                    found.append(f"tables.{name}.model: {table.model!r} is a sentence encoder, which answers nothing")
            reader = None if found else self.reader(name)
            for index, caption in enumerate(getattr(table, "captions", [])):
                check(f"tables.{name}.captions.{index}", caption, self.captions)
            if isinstance(table, TRAINED_TABLES):
                steps = table.training
                if steps.batch % steps.processes:
                    found.append(
                        f"tables.{name}.training.batch: {steps.batch} does not divide among {steps.processes} processes"
                    )
                reader = self.reader(name) if not found else None
                if (
                    reader is not None
                    and isinstance(self.models[reader.model], PackageModel)
                    and table.recipe != "scft"
                ):
                    found.append(f"tables.{name}: {table.recipe} needs a decoder; {reader.model!r} is an encoder")
        return found

    def _teacher_problems(self, path: str, system: str, backbone: str) -> list[str]:
        """Whether a run whose item vectors are read is one that has them."""
        teacher = self.systems.get(system)
        if not (isinstance(teacher, BackboneSystem) and isinstance(teacher.items, IdItems)):
            ids = [n for n, s in self.systems.items() if isinstance(s, BackboneSystem) and isinstance(s.items, IdItems)]
            return [f"{path}.system: {system!r} is no system of IDs{did_you_mean(system, ids)}"]
        if backbone not in self.backbones:
            return [f"{path}.backbone: unknown name {backbone!r}{did_you_mean(backbone, self.backbones)}"]
        return []

    def _collaborative_problems(self) -> list[str]:
        tables = {name: table for name, table in self.tables.items() if isinstance(table, CollaborativeTable)}
        return [
            problem
            for name, table in tables.items()
            for problem in self._teacher_problems(f"tables.{name}", table.system, table.backbone)
        ]

    def _semantic_id_problems(self) -> list[str]:
        found: list[str] = []
        for name, codes in self.semantic_ids.items():
            path = f"semantic_ids.{name}"
            if isinstance(codes, GivenCodes):
                continue
            for index, table in enumerate(codes.tables):
                if table not in self.tables:
                    found.append(f"{path}.tables.{index}: unknown name {table!r}{did_you_mean(table, self.tables)}")
            if len(set(codes.tables)) < len(codes.tables):
                found.append(f"{path}.tables: names something twice: {codes.tables}")
            if len(codes.sizes) != codes.levels or min(codes.sizes) < 2:
                found.append(f"{path}.codes: {codes.codes} is not a number above 1 for each of {codes.levels} levels")
        for name, system in self.systems.items():
            if not isinstance(system, NetworkSystem):
                continue
            path = f"systems.{name}"
            if system.semantic_ids not in self.semantic_ids:
                hint = did_you_mean(system.semantic_ids, self.semantic_ids)
                found.append(f"{path}.semantic_ids: unknown name {system.semantic_ids!r}{hint}")
                continue
            multimodal = isinstance(self.semantic_ids[system.semantic_ids], MMRQVAE)
            if isinstance(system, TIGERSystem) and multimodal:
                found.append(
                    f"{path}.semantic_ids: {system.semantic_ids!r} has codes a table; TIGER writes one sequence"
                )
            if isinstance(system, MMESIDSystem):
                parts = getattr(self.semantic_ids[system.semantic_ids], "tables", [])
                found += [
                    f"{path}.tables.{index}: {table!r} is none of the tables of {system.semantic_ids!r}"
                    f"{did_you_mean(table, parts)}"
                    for index, table in enumerate(system.tables or [])
                    if multimodal and table not in parts
                ]
                if not multimodal:
                    found.append(f"{path}.semantic_ids: {system.semantic_ids!r} is not made by mm_rq_vae")
                if system.model not in self.models:
                    hint = did_you_mean(system.model, self.models)
                    found.append(f"{path}.model: unknown name {system.model!r}{hint}")
                elif isinstance(self.models[system.model], PackageModel):
                    found.append(f"{path}.model: needs a decoder; {system.model!r} is an encoder")
        return found

    def _dual_view_problems(self) -> list[str]:
        """Names and widths of dual views, and tables of several rows an item where one is expected."""
        found: list[str] = []
        several = {name for name, table in self.tables.items() if isinstance(table, AttributesTable)}
        systems = {name: system for name, system in self.systems.items() if isinstance(system, BackboneSystem)}
        for name, system in systems.items():
            items, path = system.items, f"systems.{name}.items"
            if not isinstance(items, DualViewItems):
                if (table := getattr(items, "table", None)) in several:
                    found.append(f"{path}.table: {table!r} has several rows an item; only a dual view reads it")
                continue
            for shown, table in items.coarse.items():
                if table not in self.tables:
                    found.append(f"{path}.{shown}: unknown name {table!r}{did_you_mean(table, self.tables)}")
                elif table in several:
                    found.append(f"{path}.{shown}: {table!r} has several rows an item; it can only be 'fine'")
            if items.fine is not None and items.fine not in several:
                found.append(
                    f"{path}.fine: {items.fine!r} is no table of recipe attributes{did_you_mean(items.fine, several)}"
                )
            if items.views == 2 and items.combine == "concat":
                found += [
                    f"{path}: half of dim {backbone.dim} of {used!r} must be a multiple of {heads} heads"
                    for used in system.backbones or self.experiment.backbones
                    if (backbone := self.backbones.get(used)) is not None
                    and backbone.dim % (2 * (heads := self._half_heads(items, backbone)))
                ]
        for name, codes in self.semantic_ids.items():
            for index, table in enumerate(getattr(codes, "tables", [])):
                if table in several:
                    found.append(f"semantic_ids.{name}.tables.{index}: {table!r} has several rows an item")
        return found

    @staticmethod
    def _half_heads(items: DualViewItems, backbone: Any) -> int:
        """Heads that must divide a view's half of the width."""
        if items.axis == "sequence":
            return items.heads
        return 1 if items.backbone == "joint" else getattr(backbone, "heads", 1)

    def _alignment_problems(self, name: str, system: BackboneSystem) -> list[str]:
        align = getattr(system.items, "align", None)
        if align is None:
            return []
        path = f"systems.{name}.items.align"
        problems = self._teacher_problems(path, align.system, align.backbone)
        if problems:
            return problems
        width = self.backbones[align.backbone].dim
        used = system.backbones or self.experiment.backbones
        wrong = [b for b in used if b in self.backbones and self.backbones[b].dim != width]
        return [
            f"{path}: dim {self.backbones[b].dim} of {b!r} differs from {width} of {align.backbone!r}" for b in wrong
        ]

    def reader(self, table: str) -> ReadText | None:
        """The recipe that says which model reads which text for a table; None for tables that no model makes."""
        recipe = self.tables[table]
        if isinstance(recipe, CRRLTable):
            if recipe.start is not None:
                return self.reader(recipe.start)
            return LRCLTable(model=recipe.model or "", captions=recipe.captions, prompts=recipe.prompts)
        return recipe if isinstance(recipe, ReadText) else None

    def teacher(self, run: Run) -> Run | None:
        """The ID run whose item vectors a run is aligned to, of the same seed."""
        align = getattr(getattr(run.method, "items", None), "align", None)
        return None if align is None else self._run(align.system, align.backbone, run.seed)

    def collaborative(self, table: str) -> Run | None:
        """The ID run whose item vectors a table holds; None for other tables."""
        recipe = self.tables[table]
        return (
            self._run(recipe.system, recipe.backbone, recipe.seed) if isinstance(recipe, CollaborativeTable) else None
        )

    def quantized(self, codes: str) -> list[str]:
        """The item tables that codes are made of."""
        return list(getattr(self.semantic_ids[codes], "tables", []))

    def codes(self, run: Run) -> str | None:
        """The semantic IDs that a run reads."""
        found: str | None = getattr(getattr(run.method, "items", run.method), "semantic_ids", None)
        return found

    def trained(self, dataset: str) -> list[Run]:
        """Every run that is trained: those of the experiment, and those whose item vectors they read."""
        found = {run.path: run for run in self.runs(dataset)}
        for run in list(found.values()):
            codes = self.codes(run)
            tables = run.tables + (self.quantized(codes) if codes else [])
            for read in (self.teacher(run), *map(self.collaborative, tables)):
                if read is not None:
                    found.setdefault(read.path, read)
        return list(found.values())

    def _remarks(self, system: BackboneSystem | NetworkSystem, backbone: str | None) -> list[str]:
        """What must be said beside every number of a system under a backbone."""
        found: list[str] = []
        if backbone is not None and getattr(self.backbones[backbone], "preset", "correct") == "official":
            found.append(f"backbone {backbone} runs under preset official")
        if getattr(system, "preset", "correct") == "official":
            found.append("runs under preset official")
        items = getattr(system, "items", system)
        if items is not system and getattr(items, "preset", "correct") == "official":
            found.append("items enter under preset official")
        codes = getattr(items, "semantic_ids", None)
        if codes and getattr(self.semantic_ids[codes], "preset", "correct") == "official":
            found.append(f"codes {codes} were made under preset official")
        name: str | None
        for name in dict.fromkeys([*self._tables_of(system), *(self.quantized(codes) if codes else [])]):
            while name is not None:
                table = self.tables[name]
                if getattr(table, "cooccurrence", "train") == "all":
                    found.append(f"table {name} was trained with held-out interactions")
                if isinstance(table, PresetSettings) and table.preset == "official":
                    found.append(f"table {name} was made under preset official")
                name = getattr(table, "start", None)
        return found

    def _tables_of(self, system: BackboneSystem | NetworkSystem) -> list[str]:
        """The item tables that a system reads itself."""
        if isinstance(system, MMESIDSystem):  # a language model reads the tables that its codes were made of
            return self.quantized(system.semantic_ids)
        items = getattr(system, "items", None)
        if isinstance(items, DualViewItems):
            return items.tables
        table = getattr(items, "table", None)
        return [table] if table else []

    def _run(self, name: str, backbone_name: str | None, seed: int) -> Run:
        """A trained run: of a system under a backbone, or of one that is a network of its own."""
        system = self.systems[name]
        assert isinstance(system, (BackboneSystem, NetworkSystem))
        backbone = self.backbones[backbone_name] if backbone_name is not None else None
        training = {**self.training.model_dump(), **(backbone.training if backbone else {}), **system.training}
        model = getattr(system, "model", None)
        return Run(
            system=name,
            recommender=backbone_name or system.recommender,
            seed=seed,
            method=system,
            backbone=backbone,
            model=self.models[model] if model is not None else None,
            # a network of its own has a loss of its own
            loss=(system.loss or self.loss) if isinstance(system, BackboneSystem) else CrossEntropy(),
            training=Training.model_validate(training),
            tables=self._tables_of(system),
            remarks=self._remarks(system, backbone_name),
        )

    def runs(self, dataset: str) -> list[Run]:
        """Every run of the experiment on a dataset, defaults resolved; heuristics run once, under seed 0."""
        found: list[Run] = []
        if self.task == "ctr":
            return found
        for name in self.experiment.systems:
            system = self.systems[name]
            if not isinstance(system, (BackboneSystem, NetworkSystem)):
                found.append(Run(system=name, recommender=system.recommender, seed=0, method=system))
                continue
            seeds = system.seeds or self.experiment.seeds
            named: list[str] | list[None] = [None]
            if isinstance(system, BackboneSystem):
                named = system.backbones or self.experiment.backbones
            found += [self._run(name, backbone, seed) for backbone in named for seed in seeds]
        return found


def load(config: Any, where: str = "config") -> Config:
    """Check a parsed config.

    Raises:
        ConfigError: one message with every problem, a line each: file, path, value, what was expected.
    """
    try:
        found = Config.model_validate(config)
    except ValidationError as error:
        raise ConfigError(explain(error, config, where)) from None
    if found.problems:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in found.problems))
    return found
