"""Every number has bounds, and no value of any key, however wrong, gives anything but one bounded message."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from tessera.settings import document
from tessera.settings.base import ConfigError, Settings
from tessera.settings.config import Config, load

ROOT = Path(__file__).resolve().parents[3]
MODELS = [Config, *document.PLACES]
ABSURD = [math.inf, -math.inf, math.nan, 1e30, -1e30, 10**30, -(10**30), 10**400, 2**31, -(2**31), 1e-300]


def number_kinds(annotation: Any) -> set[type]:
    """`int` and `float` where a field takes them, alone or in a list."""
    if annotation in (int, float):
        return {annotation}
    if get_origin(annotation) is Literal or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return set()
    return {kind for part in get_args(annotation) for kind in number_kinds(part)}


NUMBERS = [
    pytest.param(model, name, id=f"{model.__name__}.{name}")
    for model in MODELS
    for name, field in model.model_fields.items()
    if number_kinds(field.annotation)
]


def refused(model: type[Settings], name: str, value: Any) -> bool:
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return any(problem["loc"][:1] == (name,) for problem in error.errors(include_url=False, include_input=False))
    return False


def test_the_walk_finds_the_numbers() -> None:
    assert len(NUMBERS) > 250


@pytest.mark.parametrize(("model", "name"), NUMBERS)
def test_every_number_has_bounds(model: type[Settings], name: str) -> None:
    for value in ABSURD:
        if value == 2**31 and float in number_kinds(model.model_fields[name].annotation):
            continue  # further than a float may be, but so is 1e30
        assert refused(model, name, value), value
        if "list" in str(model.model_fields[name].annotation):
            assert refused(model, name, [value]), [value]


@pytest.mark.parametrize(("model", "name"), NUMBERS)
def test_a_negative_or_no_width_is_refused(model: type[Settings], name: str) -> None:
    if name in ("hidden", "dim", "adapter", "attention_hidden", "inner_dim", "width", "seeds", "layers", "heads"):
        assert refused(model, name, -1)
        assert refused(model, name, [-1])
        assert name == "seeds" or refused(model, name, [0])


def bomb(depth: int = 9) -> Any:
    """What aliases make of a few lines: 10^9 values in memory that is shared."""
    found: Any = ["x" * 10]
    for _ in range(depth):
        found = [found] * 10
    return found


WRONG = [
    math.inf, math.nan, -1, 0, 10**400, 1.5, True, None,
    "", "x", "x" * 1_000_000, "~nouser/x", "{x}", "a\0b", "ü\u202e",
    [], [[]], [None], [-1], [{"x": 1}], {}, {"x": 1}, {1: 2}, {None: None}, {"kind": []}, datetime.date(2020, 1, 1),
    b"x",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a config, and the first entry of every list."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def with_value(config: Any, path: tuple[Any, ...], value: Any) -> Any:
    found = deepcopy(config)
    part = found
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return found


def tell(config: Any) -> str | None:
    """The message for a config, None where it is right; anything but a ConfigError is a fault."""
    try:
        load(config, "my.yaml")
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["tiny.yaml", "ctr-tiny.yaml", "semantic-ids.yaml"])
def test_any_wrong_value_is_told(name: str) -> None:
    config = yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))
    tried = told = 0
    for path in places(config):
        # every value at every key would take minutes: the walk takes turns
        for value in WRONG[tried % 4 :: 4]:
            tried += 1
            said = tell(with_value(config, path, value))
            if said is None:
                continue
            told += 1
            assert said.strip(), (path, value)
            assert all(line.startswith(("my.yaml: ", "... and ")) for line in said.splitlines()), (path, said[:2000])
            assert len(said) < 31 * 1100, (path, len(said))
            assert "Traceback" not in said
    assert told > tried // 4


@pytest.mark.parametrize(
    "path",
    [("training",), ("datasets", "bazaar"), ("experiment", "systems"), ("systems",), ("loss",)],
)
def test_a_message_stays_short_whatever_aliases_make(path: tuple[str, ...]) -> None:
    config = yaml.safe_load((ROOT / "config/tiny.yaml").read_text(encoding="utf-8"))
    for value in (bomb(), {"x": bomb()}, {"kind": bomb()}, {"training": {"x": bomb()}}):
        said = tell(with_value(config, path, value))
        assert said is not None
        assert len(said) < 5000


def test_many_problems_are_cut() -> None:
    config = {"datasets": {f"d{n}": {"source": "bazaar", "users": -n} for n in range(500)}, "experiment": {}}
    said = tell(config)
    assert said is not None
    assert said.splitlines()[-1] == "... and 471 more"
