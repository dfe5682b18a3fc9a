"""The plan of a config: which nouns it needs, what each reads, and what its job depends on. Pure: no file is opened.

A noun is something that a job makes for a dataset: a language model, captions, an embedder, an item table, semantic
IDs, a run, a click-through run. Nouns read nouns; what they read is told by the names in their settings
(`settings/references.py`), so that a new kind is read, fingerprinted and drawn without a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import PresetSettings, Settings
from tessera.settings.config import Config
from tessera.settings.ctr import CTRRun
from tessera.settings.kinds import Kind
from tessera.settings.language import BuiltModel, ByModel
from tessera.settings.losses.base import Loss
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.missing import Missing
from tessera.settings.recipes.base import RecipeSettings
from tessera.settings.references import TRUTH, ReadRun, named, walk
from tessera.settings.runs import Run
from tessera.settings.systems.backbone_base import UnderBackbones
from tessera.settings.systems.base import SystemSettings, TrainedSystem
from tessera.settings.training import Training


@dataclass(frozen=True, order=True)
class Noun:
    """Something that a job makes for a dataset."""

    kind: str
    """model, captions, embedder, table, semantic_ids, run, trial or click_run."""
    name: str
    """Its name in the config; a run's is its folder."""


class Plan:
    """What a config needs, noun by noun."""

    def __init__(self, config: Config) -> None:
        self.config = config

    # ------------------------------------------------------------ runs

    @cached_property
    def runs(self) -> list[Run]:
        """Every run of the experiment on a dataset, defaults resolved; heuristics run once, under seed 0."""
        config, runs = self.config, list[Run]()
        if config.task == "ctr":
            return runs
        for name in config.experiment.systems:
            system = config.systems[name]
            if not isinstance(system, TrainedSystem):
                missing, modalities = self._lost(system)
                remarks = [*self._said(system, [], system.item_tables(config)), *([missing.remark] if missing else [])]
                fixed = {
                    "system": name, "recommender": system.label, "method": system, "remarks": remarks,
                    "tables": system.item_tables(config), "missing": missing, "modalities": modalities,
                }  # fmt: skip
                runs += [Run.model_validate({**fixed, "seed": seed}) for seed in getattr(system, "seeds", [0])]
                continue
            seeds = system.seeds or config.experiment.seeds
            under: list[str | None] = [*system.under(config)] or [None]
            runs += [self.run(name, backbone, seed) for backbone in under for seed in seeds]
        return runs

    def run(self, name: str, backbone_name: str | None, seed: int) -> Run:
        """A trained run: of a system under a backbone, or of one that brings its own network."""
        config, system = self.config, self.config.systems[name]
        assert isinstance(system, TrainedSystem)
        backbone = config.backbones[backbone_name] if backbone_name is not None else None
        training = {**config.training.model_dump(), **(backbone.training if backbone else {}), **system.training}
        members = self.members(system, seed)
        models = [*named(system, "models"), *(model for member in members for model in member.named("models"))]
        missing, modalities = self._lost(system)
        own = self._remarks(system, backbone_name, backbone)
        if members:  # what they lose and read is told of them
            missing, own = None, [f"{one.row}: {text}" for one in members for text in one.remarks]
        # a network of its own has a loss of its own
        loss: Loss = CrossEntropy(cold_items=config.loss.cold_items if system.LEAVES_OUT_COLD else "negatives")
        if isinstance(system, UnderBackbones):
            loss = system.loss or config.loss
        # what an ensemble is made of goes on from earlier runs, and it does not
        resolved = Training.model_validate({**training, **({"warm_start": None} if members else {})})
        start = [f"goes on from the weights of {resolved.warm_start}"] * (resolved.warm_start is not None)
        return Run(
            system=name,
            recommender=backbone_name or system.label,
            seed=seed,
            method=system,
            backbone=backbone,
            model=config.models[models[0]] if models else None,
            loss=loss,
            training=resolved,
            mask_seen=config.evaluation.mask_seen,
            repeat_targets=config.evaluation.repeat_targets,
            tables=system.item_tables(config),
            missing=missing,
            modalities=modalities,
            members=[member.model_copy(update={"remarks": []}) for member in members],
            remarks=[*own, *([missing.remark] if missing else []), *start],
        )

    def members(self, system: SystemSettings, seed: int) -> list[Run]:
        """The runs that an ensemble under a seed is made of; none of any other system."""
        return self.referred(system, seed) if system.COMBINES else []

    def _lost(self, system: SystemSettings) -> tuple[Missing | None, dict[str, list[str]]]:
        """What a system goes without, and what its tables are made from; what reads nothing lost stays as it is."""
        missing, modalities = getattr(system, "missing", None) or self.config.missing, self.modalities(system)
        if missing is None or not missing.touches(modalities.values()):
            return None, modalities if system.KNOWS_MODALITIES else {}
        return missing, modalities

    def modalities(self, system: SystemSettings) -> dict[str, list[str]]:
        """What every table that a system reads is made from."""
        tables = system.item_tables(self.config)
        return {table: sorted(self.config.tables[table].modalities(self.config)) for table in tables}

    @cached_property
    def trained(self) -> dict[str, Run]:
        """Every run that is trained, by folder: those of the experiment, and those whose item vectors they read."""
        runs = {run.path: run for run in self.runs}
        waiting = list(runs.values())
        while waiting:
            for run in self._runs_behind(waiting.pop(0)):
                if run.path not in runs:
                    runs[run.path] = run
                    waiting.append(run)
        return runs

    def _runs_behind(self, run: Run) -> Iterator[Run]:
        """The runs whose item vectors a run reads, itself or through its tables and codes."""
        yield from self.referred(run.method, run.seed)
        tables = [*run.tables, *(table for codes in self.codes(run) for table in self.quantized(codes))]
        for table in dict.fromkeys(tables):
            yield from self.referred(self.config.tables[table], run.seed)

    def referred(self, settings: Settings, seed: int) -> list[Run]:
        """The runs whose item vectors settings read; `seed` is that of the reader."""
        read = [part.names(self.config) for _, part in walk(settings) if isinstance(part, ReadRun)]
        return [self.run(system, backbone, seed if own is None else own) for system, backbone, own in read]

    @cached_property
    def click_runs(self) -> dict[str, CTRRun]:
        """Every click-through run on a dataset, defaults resolved, by folder."""
        ctr = self.config.ctr
        if ctr is None or self.config.task != "ctr":
            return {}
        runs = [
            CTRRun(
                name=name, seed=seed, model=model.model_copy(update={"seeds": None}), training=ctr.training,
                semantic_ids=model.read_codes,
                max_history=ctr.samples.max_history,
                remarks=self._said(model, [ctr.semantic_ids] if model.read_codes and ctr.semantic_ids else [], []),
            )
            for name, model in ctr.models.items()
            for seed in model.seeds or self.config.experiment.seeds
        ]  # fmt: skip
        return {run.path: run for run in runs}

    # ------------------------------------------------------------ what nouns read

    def own(self, noun: Noun) -> Settings:
        """The settings of a noun as its section has them."""
        sections = {
            "run": self.trained, "click_run": self.click_runs, "semantic_ids": self.config.semantic_ids,
            "model": self.config.models, "captions": self.config.captions, "table": self.config.tables,
            "embedder": self.config.tables,
        }  # fmt: skip
        settings: Settings = sections[noun.kind][noun.name]  # type: ignore[index]
        return settings

    def parts(self, noun: Noun) -> Iterator[tuple[str, Settings]]:
        """The settings of a noun and all inside them, each with its path; members of a run are nouns of their own."""
        return ((path, part) for path, part in walk(self.own(noun)) if path.partition(".")[0] != "members")

    def codes(self, run: Run) -> list[str]:
        """The semantic IDs that a run reads."""
        return run.named("semantic_ids")

    def quantized(self, codes: str) -> list[str]:
        """The item tables that semantic IDs are made of."""
        return named(self.config.semantic_ids[codes], "tables")

    def reader(self, table: str) -> ByModel | None:
        """The settings that say which model reads what for a table; None where no model does."""
        return self.config.tables[table].reader(self.config)

    def writer(self, table: str) -> str | None:
        """The second model of a table, which writes what the one that reads reads; None where there is none."""
        reader = self.reader(table)
        others = [name for name in named(self.config.tables[table], "models") if reader is None or name != reader.model]
        return others[0] if others else None

    def captions(self, table: str) -> list[str]:
        """The captions that a model reads for a table."""
        return named(self.reader(table), "captions")

    def start(self, table: str) -> str | None:
        """The table whose embedder another's goes on from."""
        starts = named(self.config.tables[table], "tables")
        return starts[0] if starts else None

    def begun(self, table: str) -> Settings | None:
        """The settings of the recipe that a table's goes on from: that of its start, or, where none was trained, one
        that reads as it does; None where it starts from itself."""
        start, recipe = self.start(table), self.config.tables[table]
        earlier: Settings | None = self.config.tables[start] if start is not None else self.reader(table)
        return None if earlier is recipe else earlier

    def _starts(self, table: str | None) -> list[str]:
        """A table, and those whose embedders its own goes on from."""
        return [table, *self._starts(self.start(table))] if table is not None else []

    def reads(self, noun: Noun) -> list[Noun]:
        """The nouns that a noun's job reads, besides the dataset, in the order of its inputs."""
        return list(dict.fromkeys(self._reads(noun)))

    def _reads(self, noun: Noun) -> Iterator[Noun]:
        config = self.config
        if noun.kind == "run":
            run = self.trained[noun.name]
            yield from (Noun("semantic_ids", name) for name in self.codes(run))
            yield from (Noun("table", name) for name in run.tables)
            yield from (Noun("model", name) for name in run.named("models"))
            yield from (Noun("run", teacher.path) for teacher in self.referred(run.method, run.seed))
        elif noun.kind == "click_run":
            if self.click_runs[noun.name].semantic_ids and config.ctr is not None and config.ctr.semantic_ids:
                yield Noun("semantic_ids", config.ctr.semantic_ids)
        elif noun.kind == "semantic_ids":
            yield from (Noun("table", name) for name in self.quantized(noun.name))
        elif noun.kind in ("table", "embedder"):
            yield from self._made_of(noun)
        elif noun.kind == "captions":
            yield Noun("model", config.captions[noun.name].model)

    def _made_of(self, noun: Noun) -> Iterator[Noun]:
        recipe, reader = self.config.tables[noun.name], self.reader(noun.name)
        if noun.kind == "table" and recipe.TRAINS:
            yield Noun("embedder", noun.name)
        elif noun.kind == "embedder" and (start := self.start(noun.name)):
            yield Noun("embedder", start)
        if reader is not None:
            yield from (Noun("captions", name) for name in self.captions(noun.name))
            yield Noun("model", reader.model)
            if (writer := self.writer(noun.name)) is not None:
                yield Noun("model", writer)
        else:
            yield from (Noun("run", run.path) for run in self.referred(recipe, 0))

    def closure(self, wanted: Iterable[Noun]) -> list[Noun]:
        """Everything that the wanted nouns need, themselves included; what is read stands before its readers."""
        nouns: dict[Noun, None] = {}

        def visit(noun: Noun) -> None:
            if noun not in nouns:
                for read in self.reads(noun):
                    visit(read)
                nouns[noun] = None

        for noun in wanted:
            visit(noun)
        return list(nouns)

    @cached_property
    def nouns(self) -> list[Noun]:
        """Everything that the experiment needs."""
        runs = [Noun("run", run.path) for run in self.runs]
        return self.closure([*runs, *(Noun("click_run", path) for path in self.click_runs)])

    def needed(self, kind: str) -> list[str]:
        """The names of the needed nouns of a kind, in the order in which runs and their tables name them."""
        return [noun.name for noun in self.nouns if noun.kind == kind]

    def built(self, model: str) -> bool:
        """Whether a language model is made on the spot, for each dataset its own."""
        return isinstance(self.config.models[model], BuiltModel)

    def generated(self, dataset: str) -> bool:
        """Whether the truth behind a dataset is known."""
        return TRUTH in self.config.datasets[dataset].offers()

    def judged_by_truth(self, dataset: str) -> bool:
        """Whether the oracle ranks beside the systems: the truth is that of users, and says nothing of sessions."""
        return self.generated(dataset) and self.config.datasets[dataset].sessions is None

    def lifelong(self, dataset: str) -> bool:
        """Whether the true chance of every click is known, which a world tells by its time."""
        ctr = self.config.ctr
        known = getattr(self.config.datasets[dataset], "lifelong", None) is not None
        return known and (ctr is None or ctr.samples.split.by == "time")

    # ------------------------------------------------------------ what is told

    def _remarks(
        self, system: TrainedSystem, backbone_name: str | None, backbone: BackboneSettings | None
    ) -> list[str]:
        """What must be said beside every number of a system under a backbone."""
        under = [f"backbone {backbone_name} runs under preset official"] * _official(backbone)
        said = self._said(system, named(system, "semantic_ids"), system.item_tables(self.config))
        return list(dict.fromkeys([*under, *said]))

    def _said(self, method: Settings, codes: Iterable[str], tables: Iterable[str]) -> list[str]:
        """What must be said of a method of either task, and of the codes and tables that it reads."""
        remarks = ["runs under preset official"] * _official(method)
        remarks += ["items enter under preset official"] * _official(getattr(method, "items", None))
        for _, part in walk(method):
            remarks += part.remarks() if isinstance(part, Kind) else []
        codes = list(codes)
        for name in codes:
            remarks += [f"codes {name} were made under preset official"] * _official(self.config.semantic_ids[name])
        read = [*tables, *(table for name in codes for table in self.quantized(name))]
        for table in [made for first in read for made in self._starts(first)]:
            recipe: RecipeSettings = self.config.tables[table]
            remarks += [f"table {table} {remark}" for remark in recipe.remarks()]
            remarks += [f"table {table} was made under preset official"] * _official(recipe)
        return list(dict.fromkeys(remarks))


def _official(settings: Any) -> bool:
    return isinstance(settings, PresetSettings) and settings.preset == "official"


def kind_modules(*settings: Any) -> list[str]:
    """Library modules, and modules of others, that are loaded by name for settings: those of every kind in them."""
    kinds = (part for given in settings for _, part in walk(given) if isinstance(part, Kind))
    return list(dict.fromkeys(module for kind in kinds for module in kind.modules()))
