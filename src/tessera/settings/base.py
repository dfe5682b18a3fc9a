"""The base of every settings model, and how a wrong config is told to a person.

Settings are the only place with defaults. They refuse what they do not know: a message names the path to the key,
the value, what was expected and the nearest valid name.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import math
import re
import reprlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cache
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

TOP = "(top level)"
_TYPE_TAG = re.compile(r"int|float|str|bool|list\[.*\]|dict\[.*\]")
_EXPONENT_TEXT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")

LARGEST = 2**31 - 1
"""Of whole numbers: what any array, seed or counter of a library below takes."""
FARTHEST = 1.0e9
"""From zero, of other numbers: beyond it, float32 and the squares of optimisers lose their meaning."""
NEAREST = 1.0e-12
"""To zero, of numbers that are not zero."""

MOST_VALUES = 200_000
"""Of a config, those that aliases repeat counted again."""

Width = Annotated[int, Field(ge=1, le=2**16)]
"""Of a layer or a vector."""
Seed = Annotated[int, Field(ge=0)]
"""Of a random generator."""


def each_once(values: list[Any]) -> list[Any]:
    """A list that names nothing twice.

    Raises:
        ValueError: it does.
    """
    if len(set(values)) < len(values):
        raise ValueError(f"names something twice: {values}")
    return values


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(each_once)]
"""A training each."""

_LONGEST_LINE, _LONGEST_VALUE, _MOST_LINES = 1000, 200, 30
_TOLD = reprlib.Repr()
_TOLD.maxlevel, _TOLD.maxdict, _TOLD.maxlist, _TOLD.maxtuple = 3, 6, 6, 6
_TOLD.maxstring = _TOLD.maxother = _TOLD.maxlong = 120


class ConfigError(ValueError):
    """A config that cannot be run. The text is meant for the person who wrote it."""


def shown_value(value: object) -> str:
    """A value as a message shows it: like `repr`, but never long, however large the value is."""
    text = _TOLD.repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} ..."


def day(value: str, expected: str = "no day") -> date:
    """A day written 'YYYY-MM-DD'.

    Args:
        expected: what a message says that the value is instead.
    Raises:
        ValueError: it is none.
    """
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"{shown_value(value)} is {expected} 'YYYY-MM-DD' ({cut(str(error))})") from None


def share_or_day(value: float | str) -> float | str:
    """A share between 0 and 1, or a day.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        day(value, "neither a share nor a day")
    elif not 0 < value < 1:
        raise ValueError(f"expected a share between 0 and 1, or a day 'YYYY-MM-DD' (got {value})")
    return value


def ascending(values: list[int], example: list[int]) -> list[int]:
    """Positive whole numbers, each larger than the one before, of which there is one at least.

    Raises:
        ValueError: they are not; tells the `example`.
    """
    if not values or values[0] < 1 or values != sorted(set(values)):
        raise ValueError(f"expected ascending positive whole numbers, e.g. {example} (got {shown_value(values)})")
    return values


def cut(line: str) -> str:
    """A line of a message, its middle left out where it is too long to be read."""
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


def message(lines: Iterable[str]) -> str:
    """Problems as one message, a line each: as many as a person can read, each cut to what a person can read."""
    every = list(lines)
    more = [f"... and {len(every) - _MOST_LINES} more"] if len(every) > _MOST_LINES else []
    return "\n".join([*map(cut, every[:_MOST_LINES]), *more])


def check_size(config: Any, where: str = "config") -> None:
    """Refuse a config of more values than a person writes: YAML's aliases make 10^9 of ten lines, in no more memory.

    Raises:
        ConfigError: there are more than `MOST_VALUES`, or a value holds itself.
    """
    counts: dict[int, int] = {}
    within: set[int] = set()

    def count(value: Any) -> int:
        if not isinstance(value, (Mapping, list, tuple)):
            return 1
        if id(value) in within:
            raise ConfigError(f"{where}: a value holds itself")
        if id(value) not in counts:
            within.add(id(value))
            parts = value.values() if isinstance(value, Mapping) else value
            counts[id(value)] = 1 + sum(map(count, parts))
            within.discard(id(value))
        return counts[id(value)]

    try:
        if count(config) <= MOST_VALUES:
            return
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply") from None
    raise ConfigError(f"{where}: aliases (*name) make more than {MOST_VALUES:,} values of it")


_BOOLEAN_KEY = "YAML reads on, off, yes and no as true and false: write such a key in quotes"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message: the nearest valid name, in any case, and all of them when they are few."""
    names = sorted(map(str, known))
    wanted = str(name)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(wanted.casefold(), folded, n=1, cutoff=0.5) if len(wanted) <= _LONGEST_LINE else []
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    listed = f" (known: {', '.join(names)})" if names and len(names) <= 24 else ""
    return hint + listed


def _accepts_text(annotation: Any) -> bool:
    return annotation is str or annotation is Any or any(_accepts_text(part) for part in get_args(annotation))


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; a type is its own only member."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers of a value that is one, or a list of them."""
    if isinstance(value, (list, tuple)):
        for part in value:
            if not isinstance(part, (list, tuple)):
                yield from _numbers(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


class Aside:
    """Marks a field on which no result depends: no identity holds it, and a change of it re-runs nothing."""


ASIDE = Aside()


def aside(model: type[BaseModel]) -> frozenset[str]:
    """Fields of settings that are marked `ASIDE`."""
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if any(isinstance(mark, Aside) for mark in field.metadata))


def _identity(value: Any, dumped: Any) -> Any:
    """What a value was dumped as, without the fields of settings in it that are marked `ASIDE`."""
    if isinstance(value, Settings):
        kept = {name: getattr(value, name) for name in type(value).model_fields if name not in aside(type(value))}
        return {name: _identity(part, dumped[name]) for name, part in kept.items()}
    if isinstance(value, Mapping):
        return {key: _identity(part, dumped[str(key)]) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_identity(part, shown) for part, shown in zip(value, dumped, strict=True)]
    return dumped


@cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """What a model's keys mean: the texts that stand under its fields.

    They are read when they are asked for, by who writes the reference and the schema: pydantic's own way reads the
    source of every model at every start.
    """
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in pairwise(tree.body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            texts.pop(field.target.id, None)
            if (
                isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                texts[field.target.id] = inspect.cleandoc(text.value.value)
    return texts


class Settings(BaseModel):
    """A strict, frozen settings model: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    RENAMED: ClassVar[dict[str, str]] = {}
    """Keys that had another name once, and what is written today."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        keys = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in meanings(cls).items():
            if name in keys:
                keys[name].setdefault("description", text)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key, value in data.items():
            if key not in cls.model_fields:
                renamed = f"; it is `{cls.RENAMED[key]}` now" if key in cls.RENAMED else None
                if isinstance(key, bool):
                    renamed = f"{did_you_mean('', cls.model_fields)}; {_BOOLEAN_KEY}"
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key '{key}' (value {value}){hint}",
                    {
                        "key": str(key),
                        "value": shown_value(value),
                        "hint": renamed or did_you_mean(key, cls.model_fields),
                    },
                )
            text_wanted = _accepts_text(cls.model_fields[key].annotation)
            if isinstance(value, str) and not text_wanted and _EXPONENT_TEXT.fullmatch(value):
                raise PydanticCustomError(
                    "number_as_text",
                    "'{key}: {value}' is text in YAML, not a number: write it with a decimal point, e.g. 1.0e-4",
                    {"key": str(key), "value": value},
                )
        return data

    @field_validator("*")
    @classmethod
    def _refuse_absurd_numbers(cls, value: Any) -> Any:
        """The bounds of every number, whatever else its field says: finite, and of a size that can be computed with."""
        for number in _numbers(value):
            if isinstance(number, float) and not math.isfinite(number):
                raise PydanticCustomError("absurd_number", "expected a finite number")
            limit = LARGEST if isinstance(number, int) else FARTHEST
            if abs(number) > limit:
                raise PydanticCustomError(
                    "absurd_number", "expected a number between -{limit} and {limit}", {"limit": f"{limit:,}"}
                )
            if 0 < abs(number) < NEAREST:
                raise PydanticCustomError("absurd_number", "expected 0, or a number of 1.0e-12 or more")
        return value

    @model_validator(mode="before")
    @classmethod
    def _keep_other_defaults(cls, data: Any) -> Any:
        """A section that gives some keys keeps the others of that place's default, not of its kind's."""
        if not isinstance(data, Mapping):
            return data
        kept: dict[str, Any] = {}
        for key, value in data.items():
            field = cls.model_fields.get(key)
            if field is None or not isinstance(value, Mapping) or field.is_required():
                continue
            default = field.get_default(call_default_factory=True, validated_data={})
            if isinstance(default, Settings) and {type(default), type(None)} >= set(_members(field.annotation)):
                kept[key] = {**default.model_dump(exclude_defaults=True), **value}
        return {**data, **kept} if kept else data

    def offers(self) -> frozenset[Any]:
        """What those may count on who name these settings (`Need`s of `settings/references.py`)."""
        return frozenset()

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Keys that nothing reads beside the others, after the reason; of a section below them, `section.key`.

        Where a config gives one, it is refused (`settings/unread.py`).
        """
        yield from ()

    def problems(self, config: Any) -> Iterator[tuple[str, str]]:
        """What a single field cannot know, as (key, what is wrong), given the whole config; no key means all of it."""
        yield from ()

    def says(self, key: str) -> bool:
        """Whether the config gives a key, or `section.key`, be it the default's value."""
        first, _, rest = key.partition(".")
        within = getattr(self, first)
        return first in self.model_fields_set and (not rest or (isinstance(within, Settings) and within.says(rest)))

    def reads_pictures(self, source: str) -> bool:
        """Whether what they make depends on the pictures of a dataset of this source."""
        return False

    def named_files(self) -> dict[str, list[str]]:
        """The files that keys of it name, where its code alone knows of them, by key."""
        return {}

    def identity(self) -> dict[str, Any]:
        """The settings as JSON, without what no result depends on."""
        content: dict[str, Any] = _identity(self, self.model_dump(mode="json"))
        return content

    def canonical(self) -> str:
        """`identity` as sorted JSON: what the names of states are made from."""
        return json.dumps(self.identity(), sort_keys=True)


class PresetSettings(Settings):
    """Settings of which the published code needs others than the correct ones; a key given in the config stands."""

    OFFICIAL: ClassVar[dict[str, Any]] = {}
    preset: Literal["correct", "official"] = "correct"
    """`official` switches every published habit on that is thought wrong (docs/systems); tables then say so."""

    def says(self, key: str) -> bool:
        """Whether the config gives a key, or `section.key`, and not the preset."""
        return super().says(key) and not (self.preset == "official" and self._as_published(key))

    def _as_published(self, key: str) -> bool:
        """Whether a key has the value that the preset gives it."""
        published: Any = self.OFFICIAL
        value: Any = self
        for part in key.split("."):
            if not isinstance(published, Mapping) or part not in published:
                return False
            published, value = published[part], getattr(value, part)
        if isinstance(value, Settings):
            value = value.model_dump(exclude_unset=True)
        return bool(value == published)

    @staticmethod
    def _wants_official(data: Any, info: ValidationInfo) -> bool:
        """Whether these settings, or the config that they stand in, ask for the published habits."""
        if not isinstance(data, Mapping):
            return False
        everywhere = (info.context or {}).get("preset") == "official"
        return bool(data.get("preset", "official" if everywhere else "correct") == "official")

    @model_validator(mode="before")
    @classmethod
    def _official(cls, data: Any, info: ValidationInfo) -> Any:
        if cls._wants_official(data, info):
            merged = {**cls.OFFICIAL, **data, "preset": "official"}
            for key, value in cls.OFFICIAL.items():
                if isinstance(value, Mapping) and isinstance(data.get(key), Mapping):
                    merged[key] = {**value, **data[key]}
            return merged
        return data


def _value_at(config: Any, path: list[Any]) -> Any:
    for part in path:
        config = config[part]
    return config


def _readable_path(location: tuple[Any, ...], config: Any, missing: bool) -> tuple[str, Any]:
    """Pydantic puts union tags into locations; keep only the parts that a person wrote, and the value there.

    A tag can look like a key (`items: {table: NAME}` is of the kind `table`): a part that leads to a plain value
    although more parts follow is a tag.
    """
    path: list[Any] = []
    for number, part in enumerate(location):
        here = _value_at(config, path)
        # what follows may be the types that a value could have had, each told for itself
        last = all(isinstance(p, str) and _TYPE_TAG.fullmatch(p) for p in location[number + 1 :])
        is_key = isinstance(here, Mapping) and part in here and (last or isinstance(here[part], (Mapping, list)))
        is_index = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if is_key or is_index:
            path.append(part)
        elif missing and number == len(location) - 1:
            return ".".join(map(str, [*path, part])), None  # a missing key
    return ".".join(map(str, path)) or TOP, _value_at(config, path)


def explain(error: ValidationError, config: Any, where: str = "config") -> str:
    """All problems of a config, a line each: `file: path: problem (got value)`; `message` bounds them."""
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        of_value = problem["type"] == "kind_unknown" and not isinstance(
            _readable_path(location, config, False)[1], Mapping
        )
        if problem["type"] in {"unknown_key", "number_as_text", "kind_unknown"} and not of_value:
            location = (*location, problem["ctx"]["key"])
        if location and location[-1] == "[key]":
            path, _ = _readable_path(location[:-2], config, missing=False)
            # pydantic tells of 0 where the key is false
            keys = [key for key in _value_at(config, list(location[:-2])) if key == location[-2]]
            truth = [key for key in keys if isinstance(key, bool)]
            line = f"{where}: {path}: {truth[0] if truth else cut(str(location[-2]))} is no name; " + (
                _BOOLEAN_KEY if truth else "a name is text, in quotes where YAML reads a number"
            )
        else:
            path, value = _readable_path(location, config, problem["type"] == "missing")
            line = f"{where}: {path}: {_problem(problem, value)}"
        if line not in lines:
            lines.append(line)
    return message(lines)


def _problem(problem: Any, value: Any) -> str:
    """What is wrong, and what was expected."""
    text: str = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in {"literal_error", "enum", "union_tag_invalid"}:
        if problem["type"] == "union_tag_invalid":
            tag = str(problem["ctx"]["tag"])
            expected = re.findall(r"'([^']+)'", problem["ctx"]["expected_tags"])
            key = str(problem["ctx"]["discriminator"]).strip("'").replace("_system_tag()", "recommender")
            return f"unknown {key} {shown_value(tag)}{did_you_mean(tag, expected)}"
        if isinstance(value, str):
            expected = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
            return f"{shown_value(value)} is not one of the choices{did_you_mean(value, expected)}"
        return f"{expectation(problem, value)} (got {shown_value(value)})"
    if problem["type"] == "union_tag_not_found":
        key = str(problem["ctx"]["discriminator"]).strip("'")
        return f"needs a key {key!r} that says which kind it is (got {shown_value(value)})"
    if problem["type"] == "missing":
        return "is missing, and has no default"
    if problem["type"] not in {"unknown_key", "number_as_text", "kind_unknown", "value_error"}:
        return f"{expectation(problem, value)} (got {shown_value(value)})"
    return text


_EXPECTED = {
    "list_type": "expected a list, as in [a, b]",
    "dict_type": "expected keys with values, as in {{key: value}}",
    "model_type": "expected keys with values, as in {{key: value}}",
    "model_attributes_type": "expected keys with values, as in {{key: value}}",
    "string_type": "expected a text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected {ge} or more",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected {le} or less",
    "too_short": "expected entries, at least {min_length}",
    "too_long": "expected entries, at most {max_length}",
    "string_too_short": "expected a text of at least {min_length} characters",
    "string_too_long": "expected a text of at most {max_length} characters",
    "string_pattern_mismatch": "expected a text of the pattern {pattern}",
}
"""What pydantic's types of problems mean to a person, with its own names for the bounds."""


def expectation(problem: Any, value: Any) -> str:
    """What should stand in the place of a value: of a problem as pydantic tells it, in words of a config."""
    if problem["type"] in {"string_type", "float_type"} and isinstance(value, date):
        return f"write the date in quotes, '{value}'"
    expected = _EXPECTED.get(problem["type"])
    if expected is None:
        text: str = problem["msg"]
        return text.removeprefix("Value error, ").replace("Input should be ", "expected ")
    limits = problem.get("ctx", {})
    bounds = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in limits.items()}
    expected = expected.format(**bounds)
    if problem["type"] == "string_type" and isinstance(value, bool):
        return f"{expected}: YAML reads yes, no, on and off as true and false, write it in quotes"
    if problem["type"] == "string_type" and isinstance(value, int | float):
        return f"{expected}: write it in quotes, '{shown_value(value)}'"
    return expected


def choices(annotation: Any) -> list[Any]:
    """The values of a `Literal`, or the members of a union, for the generated documentation."""
    return list(get_args(annotation)) if get_origin(annotation) is not None else []
