"""The whole config: what is learned from, what is compared, how it is judged, and which runs follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from tessera.settings.base import ConfigError, PresetSettings, Seed, Settings, check_size, explain, message
from tessera.settings.ctr import CTR, CTRRun
from tessera.settings.datasets import Dataset
from tessera.settings.embedding import (
    CRRLTable,
    LRCLTable,
    SCFTTable,
)
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.language import Captions, LanguageModel, ReadText
from tessera.settings.problems import find_problems
from tessera.settings.recommenders import (
    Backbone,
    CrossEntropy,
    DualViewItems,
    GRU4RecSettings,
    Loss,
    SASRecSettings,
    Training,
)
from tessera.settings.reporting import Report
from tessera.settings.semantic_ids import MMRQVAE, SemanticIds
from tessera.settings.systems import (
    BUILT_IN_SYSTEMS,
    BackboneSystem,
    MMESIDSystem,
    NetworkSystem,
    Run,
    System,
)
from tessera.settings.tables import CollaborativeTable, ItemTable

BACKBONE_KINDS = ("sasrec", "gru4rec", "bert4rec")

# ---------------------------------------------------------------- the experiment


class Resources(Settings):
    """What a stage asks of the machine or the cluster. Results depend on `threads` alone, in their last digits."""

    threads: int = Field(1, ge=1)
    """CPU threads. Stages that train, embed, caption, quantise or judge compute in so many, whatever cores there are:
    sums are split among them, so an edit runs the stage again. In the others it changes no number."""
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
    seeds: list[Seed] = Field(default_factory=lambda: [1, 2, 3], min_length=1)
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
    """`official`: published habits for every table, quantiser, backbone, item encoder and MME-SID that has some and
    does not say otherwise, so that a system and its baselines run under the same; click models have their own."""
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
        return find_problems(self)

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
            mask_seen=self.evaluation.mask_seen,
            repeat_targets=self.evaluation.repeat_targets,
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
    check_size(config, where)
    try:
        found = Config.model_validate(config)
    except ValidationError as error:
        raise ConfigError(explain(error, config, where)) from None
    if found.problems:
        raise ConfigError(message(f"{where}: {problem}" for problem in found.problems))
    return found
