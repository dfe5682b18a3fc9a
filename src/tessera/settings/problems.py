"""What makes a config impossible although each field is right: names that point nowhere, parts that do not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tessera.settings.base import did_you_mean, explain, told
from tessera.settings.DROP import TRAINED_TABLES
from tessera.settings.items.dual_view import DualViewItems
from tessera.settings.items.ids import IdItems
from tessera.settings.items.table import TableItems
from tessera.settings.language import BuiltModel, PackageModel, ReadText
from tessera.settings.quantizers.given import GivenCodes
from tessera.settings.quantizers.mm_rq_vae import MMRQVAE
from tessera.settings.recipes.attributes import AttributesTable
from tessera.settings.recipes.collaborative import CollaborativeTable
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.hidden import HiddenTable
from tessera.settings.recipes.latent import LatentTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.sources.bazaar import BazaarSource
from tessera.settings.steps import Steps
from tessera.settings.systems.backbone import BackboneSystem
from tessera.settings.systems.base import NetworkSystem
from tessera.settings.systems.mme_sid import MMESIDSystem
from tessera.settings.systems.tiger import TIGERSystem
from tessera.settings.training import Training

if TYPE_CHECKING:
    from tessera.settings.config import Config

# Names become folders below results/; these are there already.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_MOST_CODES = 2**20
_RESERVED = {"datasets": ("benchmarks", "logs", "report", "tables"), "systems": ("oracle",)}


def find_problems(config: Config) -> list[str]:
    """Every problem of a config, each with its path."""
    found: list[str] = []

    def check(path: str, name: str, known: Mapping[str, Any]) -> None:
        if name not in known:
            found.append(f"{path}: unknown name {name!r}{did_you_mean(name, known)}")

    for index, name in enumerate(config.experiment.datasets):
        check(f"experiment.datasets.{index}", name, config.datasets)
    for index, name in enumerate(config.experiment.systems):
        check(f"experiment.systems.{index}", name, config.systems)
    for index, name in enumerate(config.experiment.backbones):
        check(f"experiment.backbones.{index}", name, config.backbones)
    for key in ("datasets", "systems", "backbones", "seeds"):
        values = getattr(config.experiment, key)
        if len(set(values)) < len(values):
            found.append(f"experiment.{key}: names something twice: {values}")
    for kind in ("datasets", "models", "captions", "tables", "semantic_ids", "systems", "backbones"):
        for name in getattr(config, kind):
            if not _NAME.fullmatch(name):
                found.append(f"{kind}.{name}: a name is letters, digits, '-', '_' and '.', the first no '.'")
            elif name in _RESERVED.get(kind, ()):
                found.append(f"{kind}.{name}: this name is taken by a folder of results; choose another")
    for name, backbone in config.backbones.items():
        heads = getattr(backbone, "heads", 1)
        if backbone.dim % heads:
            found.append(f"backbones.{name}.heads: {heads} does not divide dim {backbone.dim}")
        found += _overrides(config, f"backbones.{name}.training", backbone.training)
    for name, system in config.systems.items():
        if not isinstance(system, (BackboneSystem, NetworkSystem)):
            continue
        if isinstance(system, BackboneSystem):
            if isinstance(system.items, TableItems):
                found += _alignment(config, name, system)
            for key, known in (("table", config.tables), ("semantic_ids", config.semantic_ids)):
                named = getattr(system.items, key, None)
                if named is not None:
                    check(f"systems.{name}.items.{key}", named, known)
            for index, backbone_name in enumerate(system.backbones or []):
                check(f"systems.{name}.backbones.{index}", backbone_name, config.backbones)
        found += _overrides(config, f"systems.{name}.training", system.training)
        if len(set(system.seeds or [])) < len(system.seeds or []):
            found.append(f"systems.{name}.seeds: names something twice: {system.seeds}")
    for table_name, table in config.tables.items():
        if isinstance(table, LatentTable):
            for dataset in config.experiment.datasets:
                if dataset in config.datasets and not isinstance(config.datasets[dataset], BazaarSource):
                    found.append(f"tables.{table_name}: latent tables need source bazaar; {dataset!r} is another")
    found += _collaborative(config)
    found += _semantic_ids(config)
    found += _dual_views(config)
    found += _language(config)
    found += _ctr(config)
    measured = [f"{name}@{k}" for name in ("Hit", "NDCG") for k in config.evaluation.cutoffs] + ["MRR"]
    check("report.main_metric", config.report.main_metric, dict.fromkeys(measured))
    baseline = config.significance.baseline
    if not found and baseline is not None and config.task == "sequential":
        runs = {f"{run.system}/{run.recommender}": run for d in config.experiment.datasets for run in config.runs(d)}
        systems = {run.system for run in runs.values()}
        if baseline not in systems | set(runs):
            # a heuristic has one name, its system's
            names = systems | {name for name, run in runs.items() if not run.heuristic}
            found.append(f"significance.baseline: unknown name {baseline!r}{did_you_mean(baseline, names)}")
    return found


def _ctr(config: Config) -> list[str]:
    lifelong = [n for n, d in config.datasets.items() if isinstance(d, BazaarSource) and d.lifelong is not None]
    if config.task == "sequential":
        return [
            f"datasets.{name}.lifelong: its log holds impressions that nobody clicked, which needs task: ctr"
            for name in config.experiment.datasets
            if name in lifelong
        ]
    if config.ctr is None:
        return ["ctr: task 'ctr' needs this section, with `models`"]
    ctr, found = config.ctr, []
    for key, value in (("baseline", ctr.baseline), ("reference", ctr.reference)):
        if value is not None and value not in ctr.models:
            found.append(f"ctr.{key}: unknown name {value!r}{did_you_mean(value, ctr.models)}")
    if ctr.reference in ctr.models and ctr.models[ctr.reference].model != "din":
        found.append(f"ctr.reference: {ctr.reference!r} has no attention over histories; choose a din")
    elif ctr.reference in ctr.models and getattr(ctr.models[ctr.reference], "window", None) is not None:
        found.append(f"ctr.reference: {ctr.reference!r} sees its window alone; give it `window: null`")
    for name in config.experiment.datasets:
        world = config.datasets.get(name)
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
        if config.reads_codes(name) and ctr.semantic_ids is None:
            found.append(f"ctr.models.{name}: {model.model} reads semantic IDs, but ctr.semantic_ids names none")
    if ctr.semantic_ids is None:
        return found
    if ctr.semantic_ids not in config.semantic_ids:
        hint = did_you_mean(ctr.semantic_ids, config.semantic_ids)
        return [*found, f"ctr.semantic_ids: unknown name {ctr.semantic_ids!r}{hint}"]
    codes = config.semantic_ids[ctr.semantic_ids]
    if isinstance(codes, MMRQVAE) and len(codes.tables) > 1:
        found.append(f"ctr.semantic_ids: {ctr.semantic_ids!r} has codes a table; click models read one sequence")
    for name, model in ctr.models.items():
        weights = getattr(model, "level_weights", None)
        if weights is not None and not isinstance(codes, GivenCodes) and len(weights) != codes.levels:
            found.append(f"ctr.models.{name}.level_weights: {weights}, expected {codes.levels} numbers, one a level")
    for table in config.quantized(ctr.semantic_ids):
        if isinstance(config.tables.get(table), (CollaborativeTable, *TRAINED_TABLES)):
            found.append(
                f"ctr.semantic_ids: table {table!r} learned from histories, whose cuts are not those of ctr.samples"
            )
    return found


def _overrides(config: Config, path: str, override: Mapping[str, Any]) -> list[str]:
    try:
        Training.model_validate({**config.training.model_dump(), **override})
    except ValidationError as error:
        return explain(error, override, path).replace(f"{path}: ", f"{path}.").splitlines()
    return []


def _language(config: Config) -> list[str]:
    found: list[str] = []

    def check(path: str, name: str, known: Mapping[str, Any]) -> None:
        if name not in known:
            found.append(f"{path}: unknown name {name!r}{did_you_mean(name, known)}")

    for name, model in config.models.items():
        if isinstance(model, BuiltModel) and model.hidden % (2 * model.heads):
            found.append(f"models.{name}.heads: twice {model.heads} does not divide hidden {model.hidden}")
        if isinstance(model, BuiltModel):
            found += _shares(f"models.{name}.training", model.training)
    for name, captions in config.captions.items():
        check(f"captions.{name}.model", captions.model, config.models)
        shown = config.models.get(captions.model)
        if captions.source != "text" and isinstance(shown, PackageModel):
            found.append(f"captions.{name}.model: {captions.model!r} is a sentence encoder, which sees no pictures")
    for name, table in config.tables.items():
        if isinstance(table, CRRLTable):
            if table.start is not None:
                check(f"tables.{name}.start", table.start, config.tables)
                start = config.tables.get(table.start)
                if start is not None and not (isinstance(start, LRCLTable) and start.thoughts):
                    found.append(f"tables.{name}.start: {table.start!r} is no lrcl table with thoughts")
            if table.model is not None:
                check(f"tables.{name}.model", table.model, config.models)
        elif isinstance(table, ReadText):
            check(f"tables.{name}.model", table.model, config.models)
            if isinstance(table, HiddenTable) and isinstance(config.models.get(table.model), PackageModel):
                found.append(f"tables.{name}.model: {table.model!r} is a sentence encoder, which answers nothing")
        reader = None if found else config.reader(name)
        for index, caption in enumerate(getattr(table, "captions", [])):
            check(f"tables.{name}.captions.{index}", caption, config.captions)
        if isinstance(table, TRAINED_TABLES):
            found += _shares(f"tables.{name}.training", table.training)
            reader = config.reader(name) if not found else None
            if reader is not None and isinstance(config.models[reader.model], PackageModel) and table.recipe != "scft":
                found.append(f"tables.{name}: {table.recipe} needs a decoder; {reader.model!r} is an encoder")
    return found


def _shares(path: str, steps: Steps) -> list[str]:
    """Whether the processes of a training get equal shares of a batch."""
    if steps.batch % steps.processes:
        return [f"{path}.batch: {steps.batch} does not divide among {steps.processes} processes"]
    return []


def _teacher(config: Config, path: str, system: str, backbone: str) -> list[str]:
    """Whether a run whose item vectors are read is one that has them."""
    teacher = config.systems.get(system)
    if not (isinstance(teacher, BackboneSystem) and isinstance(teacher.items, IdItems)):
        ids = [n for n, s in config.systems.items() if isinstance(s, BackboneSystem) and isinstance(s.items, IdItems)]
        return [f"{path}.system: {system!r} is no system of IDs{did_you_mean(system, ids)}"]
    if backbone not in config.backbones:
        return [f"{path}.backbone: unknown name {backbone!r}{did_you_mean(backbone, config.backbones)}"]
    return []


def _collaborative(config: Config) -> list[str]:
    tables = {name: table for name, table in config.tables.items() if isinstance(table, CollaborativeTable)}
    return [
        problem
        for name, table in tables.items()
        for problem in _teacher(config, f"tables.{name}", table.system, table.backbone)
    ]


def _semantic_ids(config: Config) -> list[str]:
    found: list[str] = []
    for name, codes in config.semantic_ids.items():
        path = f"semantic_ids.{name}"
        if isinstance(codes, GivenCodes):
            continue
        for index, table in enumerate(codes.tables):
            if table not in config.tables:
                found.append(f"{path}.tables.{index}: unknown name {table!r}{did_you_mean(table, config.tables)}")
        if len(set(codes.tables)) < len(codes.tables):
            found.append(f"{path}.tables: names something twice: {codes.tables}")
        if len(codes.sizes) != codes.levels or min(codes.sizes) < 2 or max(codes.sizes) > _MOST_CODES:
            found.append(
                f"{path}.codes: {told(codes.codes)} is not a number above 1 for each of {codes.levels} levels "
                f"(at most {_MOST_CODES:,})"
            )
    for name, system in config.systems.items():
        if not isinstance(system, NetworkSystem):
            continue
        path = f"systems.{name}"
        if system.semantic_ids not in config.semantic_ids:
            hint = did_you_mean(system.semantic_ids, config.semantic_ids)
            found.append(f"{path}.semantic_ids: unknown name {system.semantic_ids!r}{hint}")
            continue
        multimodal = isinstance(config.semantic_ids[system.semantic_ids], MMRQVAE)
        if isinstance(system, TIGERSystem) and multimodal:
            found.append(f"{path}.semantic_ids: {system.semantic_ids!r} has codes a table; TIGER writes one sequence")
        if isinstance(system, MMESIDSystem):
            parts = getattr(config.semantic_ids[system.semantic_ids], "tables", [])
            found += [
                f"{path}.tables.{index}: {table!r} is none of the tables of {system.semantic_ids!r}"
                f"{did_you_mean(table, parts)}"
                for index, table in enumerate(system.tables or [])
                if multimodal and table not in parts
            ]
            if not multimodal:
                found.append(f"{path}.semantic_ids: {system.semantic_ids!r} is not made by mm_rq_vae")
            if system.model not in config.models:
                hint = did_you_mean(system.model, config.models)
                found.append(f"{path}.model: unknown name {system.model!r}{hint}")
            elif isinstance(config.models[system.model], PackageModel):
                found.append(f"{path}.model: needs a decoder; {system.model!r} is an encoder")
    return found


def _dual_views(config: Config) -> list[str]:
    """Names and widths of dual views, and tables of several rows an item where one is expected."""
    found: list[str] = []
    several = {name for name, table in config.tables.items() if isinstance(table, AttributesTable)}
    systems = {name: system for name, system in config.systems.items() if isinstance(system, BackboneSystem)}
    for name, system in systems.items():
        items, path = system.items, f"systems.{name}.items"
        if not isinstance(items, DualViewItems):
            if (table := getattr(items, "table", None)) in several:
                found.append(f"{path}.table: {table!r} has several rows an item; only a dual view reads it")
            continue
        for shown, table in items.coarse.items():
            if table not in config.tables:
                found.append(f"{path}.{shown}: unknown name {table!r}{did_you_mean(table, config.tables)}")
            elif table in several:
                found.append(f"{path}.{shown}: {table!r} has several rows an item; it can only be 'fine'")
        if items.fine is not None and items.fine not in several:
            found.append(
                f"{path}.fine: {items.fine!r} is no table of recipe attributes{did_you_mean(items.fine, several)}"
            )
        if items.views == 2 and items.combine == "concat":
            found += [
                f"{path}: half of dim {backbone.dim} of {used!r} must be a multiple of {heads} heads"
                for used in system.backbones or config.experiment.backbones
                if (backbone := config.backbones.get(used)) is not None
                and backbone.dim % (2 * (heads := _half_heads(items, backbone)))
            ]
    for name, codes in config.semantic_ids.items():
        for index, table in enumerate(getattr(codes, "tables", [])):
            if table in several:
                found.append(f"semantic_ids.{name}.tables.{index}: {table!r} has several rows an item")
    return found


def _half_heads(items: DualViewItems, backbone: Any) -> int:
    """Heads that must divide a view's half of the width."""
    if items.axis == "sequence":
        return items.heads
    return 1 if items.backbone == "joint" else getattr(backbone, "heads", 1)


def _alignment(config: Config, name: str, system: BackboneSystem) -> list[str]:
    align = getattr(system.items, "align", None)
    if align is None:
        return []
    path = f"systems.{name}.items.align"
    problems = _teacher(config, path, align.system, align.backbone)
    if problems:
        return problems
    width = config.backbones[align.backbone].dim
    used = system.backbones or config.experiment.backbones
    wrong = [b for b in used if b in config.backbones and config.backbones[b].dim != width]
    return [f"{path}: dim {config.backbones[b].dim} of {b!r} differs from {width} of {align.backbone!r}" for b in wrong]
