"""What files of the config begin with: columns, keys and damage are told before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tessera.data.downloads import DataFileError, is_url
from tessera.data.files import check_name, files_below, find, model_files
from tessera.data.id_list import read_ids
from tessera.plan.graph import Plan
from tessera.plan.required import Needed, dataset_files, needed_files
from tessera.plan.search import trial_problems
from tessera.settings.base import ConfigError, message
from tessera.settings.evaluation import CandidatesFile
from tessera.settings.kinds import is_outside, load
from tessera.settings.sources.base import FileSource
from tessera.settings.systems.given import GivenSystem

_NEGATIVES = "expected `user negative negative ...` a line"
ITEM_KEYS = ("metadata", "businesses", "items_file", "films")
"""The keys of a dataset that name a file of items of its source's own form."""


def check_first_lines(plan: Plan, where: str = "config") -> None:
    """Refuse a config whose files, by their first lines, are not what it says: columns, keys, damage.

    Files behind URLs are not fetched for this.

    Raises:
        ConfigError: one message with every file that does not fit, a line each.
    """
    wrong = [f"{where}: {problem}" for problem in (*trial_problems(plan), *_unlike_folders(plan))]
    for key, file, check in _first_lines(plan):
        try:
            if not is_url(file):
                check()
        except (ValueError, OSError) as error:
            wrong.append(f"{where}: {key}: {error}")
        except RecursionError:
            wrong.append(f"{where}: {key}: {file}: is nested too deeply")
    if wrong:
        raise ConfigError(message(wrong))


Look = tuple[str, str, Callable[[], object]]
"""A key of the config, the file that it names, and what looks at its first lines."""


def _first_lines(plan: Plan) -> Iterator[Look]:
    for needed in needed_files(plan):
        if not needed.pictures:
            yield needed.key, needed.file, partial(_check_names, plan, needed)
    for name in plan.config.experiment.datasets:
        dataset = plan.config.datasets[name]
        if isinstance(dataset, FileSource):
            yield from _log_and_items(name, dataset)
    if (new := plan.config.recommend.new_items) is not None:
        from tessera.data.sources.columns import check_items_file

        yield "recommend.new_items", new.path, partial(check_items_file, new)
    yield from _score_files(plan)
    yield from _given_vectors(plan)
    for key, what, path in (
        ("items", "item", plan.config.recommend.items),
        ("users", "user", plan.config.recommend.users),
    ):
        if path is not None:
            yield f"recommend.{key}", path, partial(read_ids, find(path), what)
    if isinstance(candidates := plan.config.evaluation.candidates, CandidatesFile):
        yield "evaluation.candidates.path", candidates.path, partial(check_candidates, find(candidates.path))


def _log_and_items(name: str, dataset: FileSource) -> Iterator[Look]:
    # here, for they bring libraries that a config without files does not need
    from tessera.data.sources.base import source
    from tessera.data.sources.columns import check_items_file

    reader = source(dataset)
    if hasattr(reader, "check"):
        yield f"datasets.{name}.path", dataset.path, partial(reader.check, dataset)
    for key in ITEM_KEYS:
        if (path := getattr(dataset, key, None)) is not None and hasattr(reader, "check_items"):
            yield f"datasets.{name}.{key}", path, partial(reader.check_items, dataset)
    if dataset.items is not None:
        yield f"datasets.{name}.items", dataset.items.path, partial(check_items_file, dataset.items)


def _score_files(plan: Plan) -> Iterator[Look]:
    """Files of systems that are only judged."""
    for run in plan.runs:
        if isinstance(run.method, GivenSystem):
            from tessera.data.scores import check_scores

            for name in plan.config.experiment.datasets:
                file = run.method.source(name, run.seed)
                yield f"systems.{run.system}.path", file, partial(check_scores, run.method, find(file))


def _given_vectors(plan: Plan) -> Iterator[Look]:
    """Files of tables and of semantic IDs: of what form they are, the code alone knows that reads them."""
    for section, noun in (("tables", "table"), ("semantic_ids", "semantic_ids")):
        for name in plan.needed(noun):
            settings = getattr(plan.config, section)[name]
            path = getattr(settings, "path", None)
            if path is not None and hasattr(code := load(settings.code().partition(":")[0]), "check"):
                yield f"{section}.{name}.path", path, partial(code.check, settings)


def _unlike_folders(plan: Plan) -> Iterator[str]:
    """Logs of own sources whose folder holds files of a form that only their module knows."""
    for name in plan.config.experiment.datasets:
        if not is_outside(type(plan.config.datasets[name])):
            continue  # these have a `check`
        try:
            dataset_files(plan.config, name)
        except (DataFileError, FileNotFoundError) as error:
            hint = "a function files(settings) in the source's module says which files are read"
            yield f"datasets.{name}.path: {error}; {hint}"


def _check_names(plan: Plan, needed: Needed) -> None:
    """Look at the names of all files that rules read of a path; of a folder these are not all that lie there."""
    section, name, key = f"{needed.key}..".split(".")[:3]
    if section == "models":
        files = model_files(find(needed.file))
    elif (section, key) == ("datasets", "path"):
        files = dataset_files(plan.config, name)
    else:
        files = files_below(find(needed.file))
    for file in files:
        check_name(file)


def check_candidates(path: Path) -> None:
    """Refuse a file of negatives whose first line is none.

    Raises:
        DataFileError: it is no text, is empty, or holds a user alone.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line.split() for line in file if line.strip()), [])
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path}: no UTF-8 text (byte {error.start}); {_NEGATIVES}") from None
    if len(first) < 2:
        raise DataFileError(f"{path}: begins with {' '.join(first)!r}; {_NEGATIVES}")
