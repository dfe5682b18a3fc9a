"""The whole config: what is learned from, what is compared, how it is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tessera.artifacts.places import final_name
from tessera.settings.backbones.base import Backbone
from tessera.settings.base import ConfigError, Seed, Settings, check_size, did_you_mean, explain, message
from tessera.settings.claims import Claim
from tessera.settings.ctr import CTR
from tessera.settings.datasets import GivenSplit, NoSplit
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.export import Export
from tessera.settings.kinds import tags
from tessera.settings.language import Captions, LanguageModel
from tessera.settings.losses.base import Loss
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.missing import Missing, Robustness
from tessera.settings.problems import find_problems
from tessera.settings.quantizers.base import SemanticIds
from tessera.settings.recipes.base import ItemTable
from tessera.settings.recommend import Recommend
from tessera.settings.references import BackboneName, DatasetName, SystemName
from tessera.settings.reporting import Report
from tessera.settings.resources import StageResources
from tessera.settings.search import Search
from tessera.settings.sources.base import Dataset
from tessera.settings.systems.backbone_base import UnderBackbones
from tessera.settings.systems.base import System
from tessera.settings.training import Training

BUILT_IN_MODELS: dict[str, Any] = {"small": {"built": "qwen2.5-vl"}}
BUILT_IN_SYSTEMS: dict[str, Any] = {
    "popular": {"recommender": "popular"},
    "item_knn": {"recommender": "item_knn"},
    "markov": {"recommender": "markov"},
    "id": {"items": "ids"},
}

OF_RANKING = {
    "training": ": theirs is ctr.training",
    "evaluation": ": theirs is ctr.evaluation",
    "significance": ": theirs are ctr.baseline and ctr.evaluation",
    "loss": ": theirs is binary cross-entropy",
    "missing": "",
    "recommend": "",
    "export": "",
}
"""Sections that say nothing to `task: ctr`, and what does instead."""


class Experiment(Settings):
    """What is compared: every system under every backbone, on every dataset, for every seed."""

    name: str | None = None
    """Folder of all that a run makes, `results/<name>/`; without one, the name of the config file. Experiments of
    different names lie beside one another, and take from one another what they have in common."""
    datasets: list[DatasetName] = Field(min_length=1)
    """Names under `datasets`."""
    systems: list[SystemName] = Field(default_factory=lambda: ["popular", "item_knn", "markov", "id"], min_length=1)
    """Names under `systems`, or the built-in popular, item_knn, markov and id."""
    backbones: list[BackboneName] = Field(default_factory=lambda: ["sasrec"], min_length=1)
    """Names under `backbones`, or the built-in sasrec, gru4rec, bert4rec, mamba, filter, hstu and srgnn."""
    seeds: list[Seed] = Field(default_factory=lambda: [1, 2, 3], min_length=1)
    """One training of every run a seed."""
    recommend: list[str] = Field(default_factory=list)
    """Runs with which lists for all users are made, as `system/recommender` (e.g. `reaemb/sasrec`), or a system under
    all of its recommenders; of several seeds the first. Any other run's are made when they are asked for."""
    export: list[str] = Field(default_factory=list)
    """Runs, named in the same way, that are written into a folder to hand on: `results/<name>/<dataset>/export/`. Those
    that `final` names too are handed on as trained in the end."""
    final: list[str] = Field(default_factory=list)
    """Runs, named in the same way, that are trained again on every interaction, for as many epochs as the validated run
    was best after: `results/<name>/<dataset>-final/runs/`. Lists of `recommend` come from these, then."""

    @field_validator("final", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Config(Settings):
    """A Tessera config."""

    datasets: dict[str, Dataset] = Field(min_length=1)
    """What is learned from, by name."""
    preset: Literal["correct", "official"] = "correct"
    """`official`: published habits for every table, quantiser, backbone, item encoder and system that has some and
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
    """Backbones by name; sasrec, gru4rec, bert4rec, mamba, filter, hstu and srgnn are built in."""
    task: Literal["sequential", "ctr"] = "sequential"
    """Rank a user's next item by `systems`, or predict clicks from lifelong histories by the models of `ctr`."""
    ctr: CTR | None = None
    """Click-through rate; of `experiment` it takes the datasets and the seeds."""
    loss: Loss = Field(default_factory=CrossEntropy)
    """The loss of every trained system but those that bring their own: TIGER, MME-SID, EIMF, `i3_mrec_graph`."""
    training: Training = Field(default_factory=Training)
    """The training loop."""
    missing: Missing | None = None
    """Pictures or texts that all systems go without, the same items for all; a system may say otherwise."""
    robustness: Robustness | None = None
    """How trained runs are judged again as more and more is missing (docs/missing.md); null does not."""
    search: Search | None = None
    """Settings that are chosen on validation, with as many trials for every system (docs/fair.md); null takes all
    settings as they stand."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    """How runs are judged."""
    significance: Significance = Field(default_factory=Significance)
    """How differences are tested."""
    claims: list[Claim] = Field(default_factory=list)
    """What is said before the run, and tested after it (docs/fair.md)."""
    recommend: Recommend = Field(default_factory=Recommend)
    """What lists for all users hold."""
    export: Export = Field(default_factory=Export)
    """What is in the folder of a run that is handed on."""
    report: Report = Field(default_factory=Report)
    """What the report shows."""
    resources: StageResources = Field(default_factory=StageResources)
    """What stages ask of the machine."""
    experiment: Experiment
    """What is run."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """A task without its section, a metric that is not measured, a claim that stands twice."""
        said = [claim.name for claim in self.claims]
        if twice := [name for number, name in enumerate(said) if name in said[:number]]:
            yield "claims", f"two claims have the name {twice[0]!r}"
        if self.task == "ctr":
            yield from self._unread_by_click_models()
        measured = self.evaluation.measured
        if (wanted := self.report.main_metric) not in measured:
            yield "report.main_metric", f"unknown name {wanted!r}{did_you_mean(wanted, measured)}"
        baseline = self.significance.baseline
        if self.task == "sequential" and baseline is not None and not _is_compared(self, baseline):
            yield "significance.baseline", f"unknown name {baseline!r}{did_you_mean(baseline, compared(self))}"
        for key in ("recommend", "export", "final"):
            for index, name in enumerate(getattr(self.experiment, key)):
                if problem := self._of_system(name):
                    yield f"experiment.{key}.{index}", problem
        for index, name in enumerate(self.experiment.datasets):
            yield from self._of_dataset(index, name)

    def _unread_by_click_models(self) -> Iterator[tuple[str, str]]:
        if self.ctr is None:
            yield "ctr", "task 'ctr' needs this section, with `models`"
        for key, instead in OF_RANKING.items():
            if key in self.model_fields_set:
                yield key, f"click models do not read it{instead}; leave it out"
        if "main_metric" in self.report.model_fields_set:
            yield "report.main_metric", "the tables of click models are led by AUC; leave it out"

    def _of_system(self, name: str) -> str | None:
        """What is wrong with a name whose run is to recommend, to be exported or to be trained at the end."""
        if self.task == "ctr":
            return f"click models rank no catalogue (got {name!r})"
        if not _is_compared(self, name):
            return f"unknown name {name!r}{did_you_mean(name, compared(self))}"
        if self.systems[name.partition("/")[0]].ONLY_JUDGED:
            return f"{name!r} is only judged: it is a file of another program, and reads no histories"
        return None

    def _of_dataset(self, index: int, name: str) -> Iterator[tuple[str, str]]:
        """What is wrong with a dataset of the experiment for its task, and with the one that is made for the end."""
        if isinstance(self.datasets[name].split, NoSplit) and self.task == "sequential":
            reason = "split none has no test user, so nothing can be compared on it; give the dataset another split"
            yield (
                f"experiment.datasets.{index}",
                f"{reason}, and name in experiment.final what trains on everything",
            )
        if self.task == "ctr":
            shown = self.ctr is not None and self.ctr.samples.source == "impressions"
            yield from ((f"datasets.{name}.{key}", text) for key, text in _of_no_clicks(self.datasets[name], shown))
        if self.experiment.final and self.datasets.get(final_name(name)) != on_everything(self.datasets[name]):
            yield f"datasets.{final_name(name)}", f"experiment.final makes a dataset of this name of {name!r}"

    @property
    def finals(self) -> dict[str, str]:
        """The datasets that `experiment.final` trains on, and what each is made of."""
        return {final_name(name): name for name in self.experiment.datasets} if self.experiment.final else {}

    @model_validator(mode="after")
    def _with_finals(self) -> Config:
        """Datasets with every interaction, for what is trained at the end."""
        for made, name in self.finals.items():
            if name in self.datasets:
                self.datasets.setdefault(made, on_everything(self.datasets[name]))
        return self

    @model_validator(mode="before")
    @classmethod
    def _built_ins(cls, data: Any) -> Any:
        """What a config need not name: a small model, heuristics and IDs, and a backbone of each kind by its tag."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        for section, known in (("models", BUILT_IN_MODELS), ("systems", BUILT_IN_SYSTEMS)):
            given = data.get(section) or {}
            if isinstance(given, Mapping):
                data[section] = {**known, **given}
        backbones = data.get("backbones") or {}
        if isinstance(backbones, Mapping):
            named = {kind: {} for kind in tags("backbones")} | {name: keys or {} for name, keys in backbones.items()}
            data["backbones"] = {
                name: {"kind": name, **keys} if name in tags("backbones") and isinstance(keys, Mapping) else keys
                for name, keys in named.items()
            }
        return data


def _of_no_clicks(dataset: Dataset, impressions: bool) -> Iterator[tuple[str, str]]:
    """What is said of a dataset that click models do not read, or that takes clicks or training rows away."""
    if dataset.sessions is not None:
        yield "sessions", "click models read the whole history of a user, not its sessions"
    elif dataset.split.kind == "global_temporal":
        yield "split", "drops rows that ctr.samples.split, which cuts for click models, needs; leave it out"
    if dataset.cleaning.core is not None and dataset.cleaning.core.on == "train":
        yield (
            "cleaning.core.on",
            "'train' goes by the dataset's split, and click models have ctr.samples.split; take 'all'",
        )
    if dataset.cleaning.repeats == "last":
        yield (
            "cleaning.repeats",
            "'last' lets what ctr.samples.split holds out take earlier rows out of the training part; take 'keep'",
        )
    if dataset.cleaning.repeats == "first" and impressions:
        yield "cleaning.repeats", "'first' keeps an item's first view and loses the click that follows; take 'keep'"
    if dataset.cleaning.max_history is not None:
        yield (
            "cleaning.max_history",
            "counts what ctr.samples.split holds out, too, and takes training rows away for it; say "
            "ctr.samples.max_history",
        )


def on_everything(dataset: Dataset) -> Dataset:
    """A dataset without held-out rows, in the order of its parts: as `experiment.final` trains on it, and as click
    models read one whose source tells of parts."""
    split = NoSplit(by_part=isinstance(dataset.split, GivenSplit))
    made: Dataset = dataset.model_copy(update={"split": split})
    return made


def compared(config: Config) -> list[str]:
    """What a baseline is called: a system, or a system under a backbone."""
    names: list[str] = []
    for name in config.experiment.systems:
        names += [name, *(f"{name}/{backbone}" for backbone in config.systems[name].under(config))]
    return list(dict.fromkeys(names))


def _is_compared(config: Config, name: str) -> bool:
    """Whether a baseline is one of the experiment; `popular/popular`, as tables say it, is one too."""
    system = config.systems.get(name.partition("/")[0])
    alone = system is not None and not isinstance(system, UnderBackbones) and name.endswith(f"/{system.label}")
    return name in compared(config) or (alone and name.partition("/")[0] in config.experiment.systems)


def load(config: Any, where: str = "config", name: str | None = None) -> Config:
    """Check a parsed config.

    Args:
        where: what messages call it.
        name: of the experiment, where the config gives none.
    Raises:
        ConfigError: one message with every problem, a line each: file, path, value, what was expected.
    """
    check_size(config, where)
    preset = config.get("preset") if isinstance(config, Mapping) else None
    try:
        loaded = Config.model_validate(config, context={"preset": preset})
    except ValidationError as error:
        raise ConfigError(explain(error, config, where)) from None
    if problems := find_problems(loaded):
        raise ConfigError(message(f"{where}: {problem}" for problem in problems))
    if loaded.experiment.name is None and name is not None:
        loaded = loaded.model_copy(update={"experiment": loaded.experiment.model_copy(update={"name": name})})
    return loaded
