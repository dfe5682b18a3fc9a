"""Config files as a person wrote them: what YAML and JSON readers pass over in silence is refused here, with its line.

Snakemake parses the files that the run uses; of a key that stands twice it keeps the last, and of a syntax error it
tells no line. So every file is read here first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tessera.settings.base import MOST_VALUES, ConfigError, cut, message, shown_value

OVERLAYS = "overlays"
"""A folder of configs that are read after another one, and give no experiment its name."""

LARGEST_FILE = 10_000_000
"""Bytes of a config file."""

_MERGE = "tag:yaml.org,2002:merge"


def experiment_name(paths: Iterable[str | Path]) -> str:
    """What an experiment is called whose config gives it no name: as the last of its files that is no overlay.

    What is no part of a folder's name becomes `-`.
    """
    files = [Path(path) for path in paths]
    last = [path for path in files if path.parent.name != OVERLAYS][-1:] or files[-1:]
    if not last or last[0].is_relative_to("/dev"):  # `--configfile <(command)`
        return "experiment"
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last[0].stem).strip(".-") or "experiment"


def name_of_experiment(paths: Sequence[Path], overrides: Mapping[str, Any]) -> str:
    """What the experiment of some config files is called.

    Args:
        paths: the files, which can be read.
        overrides: what `--config` says beside them.
    """
    for config in (overrides, *(yaml.safe_load(path.read_text(encoding="utf-8")) for path in reversed(paths))):
        experiment = config.get("experiment") if isinstance(config, Mapping) else None
        if isinstance(experiment, Mapping) and experiment.get("name"):
            return str(experiment["name"])
    return experiment_name(paths)


def check_files_of_config(paths: Iterable[str | Path]) -> None:
    """Refuse files that are no config, or that say something twice; several files may well say the same key.

    Raises:
        ConfigError: one message for all files, a line each: file, line, problem.
    """
    problems: list[str] = []
    for path in paths:
        problems += _problems(Path(path))
    if problems:
        raise ConfigError(message(problems))


def merged(first: Any, second: Any) -> Any:
    """One config over another, section by section: what is no section takes the place of what was there."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    return {**first, **{key: merged(first.get(key), value) for key, value in second.items()}}


def command_line(entries: Iterable[str]) -> dict[str, Any]:
    """The sections that `--config KEY=VALUE` gives, their values read as a config file's are.

    Snakemake reads a nested value as texts alone: `training={epochs: 3}` would give the text '3'.

    Raises:
        ConfigError: a value is no YAML, or says a key twice.
    """
    given: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        try:
            node = _compose(text)
            if node is not None:
                _bounded(node)
                for problem in _repeated(node):
                    raise _Bad(f": {problem}")
                _values(node)
            given = merged(given, {key: yaml.safe_load(text)})
        except _Bad as bad:
            raise ConfigError(f"--config {key}{bad} (got {shown_value(text)})") from None
    return given


def _problems(path: Path) -> list[str]:
    try:
        text = _text(path)
        if text is None:
            return []
        node = _compose(text)
        if node is None:
            raise _Bad("holds no keys")
        if not isinstance(node, yaml.MappingNode):
            raise _Bad("expected keys at the top, `datasets: ...`", node)
        _bounded(node)
        twice = [*_repeated(node)]
        if not twice:
            _values(node)
    except _Bad as bad:
        return [f"{path}{bad}"]
    return [f"{path}: {problem}" for problem in twice]


class _Bad(Exception):
    """What is wrong with a file; as text, what follows its name."""

    def __init__(self, problem: str, node: yaml.Node | None = None, line: int | None = None) -> None:
        line = _line(node) if node is not None else line
        super().__init__((f": line {line}: " if line else ": ") + problem)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _text(path: Path) -> str | None:
    try:
        if path.is_fifo():
            return None  # `--configfile <(command)` can be read once, and not by us
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise _Bad(f"no such file; looked in {Path.cwd()}") from None
    except IsADirectoryError:
        raise _Bad("is a folder, expected a YAML or JSON file") from None
    except OSError as error:
        raise _Bad(f"cannot be read ({error.strerror})") from None
    if len(raw) > LARGEST_FILE:
        raise _Bad(f"has more than {LARGEST_FILE:,} bytes; a config is a short text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Bad("is not UTF-8 text", line=raw.count(b"\n", 0, error.start) + 1) from None


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a YAML or JSON text, with their lines."""
    try:
        json.loads(text)
        text = text.replace("\t", " ")  # white space in JSON, which YAML does not take for it
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, [error.context, error.problem]))
        tabs = "; indent with blanks, not with tabs" if "\\t" in said else ""
        raise _Bad(f"is no YAML: {cut(said)}{tabs}", line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise _Bad(f"is no YAML: {cut(' '.join(str(error).split()))}") from None
    except RecursionError:
        raise _Bad("is nested too deeply") from None


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _bounded(root: yaml.Node) -> None:
    """Refuse aliases that lead back to themselves, or that make more values than anything could show."""
    counts: dict[int, int] = {}
    open_nodes: set[int] = set()

    def count(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise _Bad("an alias (*name) holds itself", node)
        if id(node) not in counts:
            open_nodes.add(id(node))
            counts[id(node)] = 1 + sum(map(count, _children(node)))
            open_nodes.discard(id(node))
        if counts[id(node)] > MOST_VALUES:
            raise _Bad(f"aliases (*name) make more than {MOST_VALUES:,} values of it", node)
        return counts[id(node)]

    try:
        count(root)
    except RecursionError:
        raise _Bad("is nested too deeply") from None


def _repeated(root: yaml.Node) -> Iterator[str]:
    """Keys that stand twice in the same place."""
    waiting: list[tuple[str, yaml.Node]] = [("", root)]
    met: set[int] = set()
    while waiting:
        path, node = waiting.pop(0)
        if id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(f"{path}{number}.", part) for number, part in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, value in node.value:
            waiting.append((f"{path}{key.value if isinstance(key, yaml.ScalarNode) else '?'}.", value))
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            before = first.setdefault((key.tag, key.value), key)
            if before is not key:
                name = cut(f"{path}{key.value}")
                here, there = _line(before), _line(key)
                where = f"lines {here} and {there}" if here != there else f"line {here}, twice"
                yield f"{where}: the key {name!r} stands twice, and the first would be lost; join the two"


class _Loader(yaml.SafeLoader):
    """Tells the line of a value that YAML cannot make, such as a 13th month."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise _Bad(
                f"{shown_value(node.value)} is no value ({cut(str(error))}); text is put in quotes", node
            ) from None


def _values(root: yaml.Node) -> None:
    """Make the values once: what cannot be made is told with its line."""
    loader = _Loader("")
    try:
        loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, [error.context, error.problem]))
        raise _Bad(f"is no YAML that a config may hold: {cut(said)}", line=mark.line + 1 if mark else None) from None
    except RecursionError:
        raise _Bad("is nested too deeply") from None
    finally:
        loader.dispose()
