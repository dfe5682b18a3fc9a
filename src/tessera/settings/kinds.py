"""Kinds found by name: a system, a backbone, a recipe, ... is one settings file and one code file of the same name.

A config names a kind by a tag: the name of a file in its family's folder of settings, or `package.module:Class`, a
settings class that lies outside of the package, on the path of the working directory. Nothing lists the kinds: a new
one is two new files, and no other stage's fingerprint knows of it.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self, cast, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tessera.settings.base import Settings, did_you_mean, shown_value


@dataclass(frozen=True)
class Family:
    """Kinds that can stand in the same place of a config."""

    key: str
    """The key of a config that holds the tag."""
    settings: str
    """The package of the settings files."""
    base: str
    """The class in its `base` module that all of them extend."""
    default: str | None = None
    """The tag where a config names none."""
    presets: bool = True
    """Whether the `preset` of the config is meant for them too."""


FAMILIES = {
    "backbones": Family("kind", "tessera.settings.backbones", "BackboneSettings"),
    "items": Family("kind", "tessera.settings.items", "ItemSettings"),
    "losses": Family("kind", "tessera.settings.losses", "LossSettings"),
    "systems": Family("recommender", "tessera.settings.systems", "SystemSettings", "backbone"),
    "recipes": Family("recipe", "tessera.settings.recipes", "RecipeSettings"),
    "quantizers": Family("quantizer", "tessera.settings.quantizers", "QuantizerSettings"),
    "clicks": Family("model", "tessera.settings.clicks", "ClickModel", presets=False),
    "sources": Family("source", "tessera.settings.sources", "DatasetSettings"),
}


def is_outside(part: type) -> bool:
    """Whether a class is none of the library's: somebody's own settings, or their own code."""
    return not part.__module__.startswith("tessera.")


class Kind(Settings):
    """Settings of one kind of a family."""

    IMPLEMENTATION: ClassVar[str] = ""
    """`package.module:Name` of the code that these settings are of; loaded when it is used."""
    PUBLISHED: ClassVar[str] = ""
    """The same code with published habits that are thought wrong, where they have a file of their own. It stands beside
    `IMPLEMENTATION`: a class that names other code names both anew."""
    HABITS: ClassVar[tuple[str, ...]] = ()
    """Keys that need `PUBLISHED` where they are as the preset `official` has them."""
    FREE: ClassVar[frozenset[str]] = frozenset()
    """Keys that say nothing of what weights are or mean: a run may go on from one that had others (`warm_start`).
    Numbers with a fraction, such as rates and weights of losses, are free everywhere."""

    FILES: ClassVar[tuple[str, ...]] = ()
    """Keys that name files which the code reads, each a text or a list of them: they are looked for before anything
    runs, and a change of one makes anew what read it. Of a class from outside of the package `path` is one, too."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "IMPLEMENTATION" in vars(cls) and "PUBLISHED" not in vars(cls):
            cls.PUBLISHED = ""

    @model_validator(mode="after")
    def _has_code_for_habits(self) -> Self:
        if (habits := self.habits()) and not self.PUBLISHED:
            raise ValueError(
                f"{habits[0]}: {shown_value(getattr(self, habits[0]))} is a published habit that {self.IMPLEMENTATION} "
                "does not have; leave it out, or name code that has it as PUBLISHED beside IMPLEMENTATION"
            )
        return self

    def habits(self) -> list[str]:
        """The keys of `HABITS` that are as published."""
        official: Mapping[str, Any] = getattr(self, "OFFICIAL", {})
        return [key for key in self.HABITS if key in official and getattr(self, key) == official[key]]

    def code(self) -> str:
        """`package.module:Name` of what is loaded for these settings: the correct form alone, or the published one."""
        return self.PUBLISHED if self.habits() else self.IMPLEMENTATION

    def remarks(self) -> list[str]:
        """What must be said beside every number that these settings had a part in."""
        return []

    @classmethod
    def unusable(cls) -> str | None:
        """Why a class from outside cannot be used, as the end of a sentence about it; None where it can."""
        return None

    def named_files(self) -> dict[str, list[str]]:
        """See `Settings.named_files`."""
        keys = (*(["path"] if is_outside(type(self)) else []), *self.FILES)
        named = {key: getattr(self, key, None) for key in keys}
        lists = {key: [value] if isinstance(value, str) else value for key, value in named.items()}
        return {key: list(map(str, value)) for key, value in lists.items() if isinstance(value, list | tuple) and value}

    def modules(self) -> list[str]:
        """Modules that are loaded by name for these settings: where they stand, and their code."""
        code = [self.code().partition(":")[0]] if self.code() else []
        return list(dict.fromkeys([type(self).__module__, *code]))


class KindError(ValueError):
    """A tag that leads to no kind; the text is the end of a message."""


def load(place: str) -> Any:
    """What `package.module:Name` leads to. The one place of the library that imports by name.

    Modules of the working directory are found where no installed one has their name; their own imports are found
    there too, at any later time.

    Raises:
        KindError: there is no such module, or it has no such name.
    """
    module_name, _, name = place.partition(":")
    if not module_name.startswith("tessera.") and (own := str(Path.cwd())) not in sys.path:
        sys.path.append(own)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # a module that the module itself misses is another fault
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise KindError(
            f"there is no module {module_name!r} in {Path.cwd()}, where the run starts{_near(module_name)}"
        ) from None
    if name and not hasattr(module, name):
        raise KindError(f"module {module_name!r} has no {name!r}{did_you_mean(name, _own_names(module))}")
    return getattr(module, name) if name else module


def _near(module: str) -> str:
    """The nearest module of the same folder, where there is such a folder."""
    folder, _, name = module.rpartition(".")
    place = Path.cwd().joinpath(*folder.split("."))
    return did_you_mean(name, [path.stem for path in place.glob("*.py")]) if place.is_dir() else ""


def _own_names(module: Any) -> list[str]:
    """The classes and functions that a module defines."""
    names = vars(module).items()
    return [name for name, value in names if getattr(value, "__module__", None) == module.__name__ and name[0] != "_"]


@cache
def tags(family: str) -> tuple[str, ...]:
    """The tags of a family's own kinds: the names of its files."""
    spec = find_spec(FAMILIES[family].settings)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    files = [path.stem for place in spec.submodule_search_locations for path in Path(place).glob("*.py")]
    return tuple(sorted(name for name in files if not name.startswith("_") and not name.endswith("base")))


@cache
def settings_class(family: str, tag: str) -> type[Kind]:
    """The settings class of a tag.

    Raises:
        KindError: nothing has this name.
    """
    place = FAMILIES[family]
    base: type[Kind] = load(f"{place.settings}.base:{place.base}")
    if ":" in tag:
        return _outside(place, base, tag)
    if tag not in tags(family):
        raise KindError(f"unknown {place.key} {tag!r}{did_you_mean(tag, tags(family))}")
    module = load(f"{place.settings}.{tag}")
    (own,) = [kind for kind in vars(module).values() if _is_kind_of(kind, base, module.__name__)]
    return cast("type[Kind]", own)


_OUTSIDE = re.compile(r"\w+(\.\w+)*:\w+")


def _outside(family: Family, base: type[Kind], tag: str) -> type[Kind]:
    """The settings class of a tag that leads out of the package; what is wrong with its files is told in one line."""
    if not _OUTSIDE.fullmatch(tag):
        raise KindError(f"{tag!r} is no package.module:Class")
    try:
        kind = load(tag)
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise KindError(f"{tag!r} is no {base.__name__}: a {family.key} extends {base.__module__}.{base.__name__}")
        _check_file(tag.partition(":")[0])
        if not kind.IMPLEMENTATION:
            raise KindError(f"{tag!r} does not say where its code is: it needs IMPLEMENTATION = 'package.module:Name'")
        if reason := kind.unusable():
            raise KindError(f"{tag!r} {reason}")
        for key in kind.FILES:
            if key not in kind.model_fields:
                near = did_you_mean(key, list(kind.model_fields))
                raise KindError(f"{tag!r} names {key!r} in FILES, which is no key of it{near}")
        for code in filter(None, (kind.IMPLEMENTATION, kind.PUBLISHED)):
            module, _, name = code.partition(":")
            _check_file(module)
            _check_name(module, name)
    except KindError:
        raise
    except Exception as error:  # whatever a file of somebody else raises
        raise KindError(f"{tag!r} cannot be loaded: {type(error).__name__}: {error}") from None
    return _named_by(tag, kind, family.key)


def _named_by(tag: str, kind: type[Kind], key: str) -> type[Kind]:
    """The class as its own tag names it: one that extends a class of the library takes the tag of its base alone."""
    names = get_args(kind.model_fields[key].annotation) if key in kind.model_fields else ()
    if not names or tag in names or not all(isinstance(name, str) for name in names):
        return kind
    fields: dict[str, Any] = {key: (str, tag)}
    return create_model(kind.__name__, __base__=kind, __module__=kind.__module__, __doc__=kind.__doc__, **fields)


def _absent(module: str) -> str:
    return f"there is no module {module!r} in {Path.cwd()}, where the run starts{_near(module)}"


def _check_file(module: str) -> None:
    """Refuse code that no fingerprint would cover: what lies neither in the library nor in the working directory."""
    file = _file(module)
    if file is None:
        raise KindError(_absent(module))
    if not module.startswith("tessera.") and not file.is_relative_to(Path.cwd()):
        raise KindError(f"module {module!r} is {file}, which is not in {Path.cwd()}; give yours another name")


def _check_name(module: str, name: str) -> None:
    """Refuse a name that own code does not define, without importing it: that may take libraries, and time."""
    file = _file(module)
    if not name or module.startswith("tessera.") or file is None or file.suffix != ".py":
        return
    defined: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.append(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            defined += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.append(node.id)
    if name not in defined and "*" not in defined:
        raise KindError(f"module {module!r} has no {name!r}{did_you_mean(name, defined)}")


def _file(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None


def _is_kind_of(candidate: Any, base: type[Kind], module: str) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, base) and candidate.__module__ == module


def members(family: str) -> list[type[Kind]]:
    """The settings classes of a family's own kinds."""
    return [settings_class(family, tag) for tag in tags(family)]


def implementation(settings: Kind) -> Any:
    """The code that settings are of: a class or a module, loaded now."""
    return load(settings.code())


@dataclass(frozen=True)
class KindOf:
    """Annotation of a field that takes the settings of any kind of a family: the tag decides which."""

    family: str

    def validate(self, value: Any, info: ValidationInfo) -> Kind:
        """The settings that a mapping with a tag describes."""
        place = FAMILIES[self.family]
        if isinstance(value, Kind):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("kind_type", "expected keys with values, '{key}' among them", {"key": place.key})
        tag = value.get(place.key, place.default)
        if tag is None:
            raise PydanticCustomError(
                "kind_needed",
                "needs a key '{key}' that says which kind it is{hint}",
                {"key": place.key, "hint": did_you_mean(next(iter(value), ""), tags(self.family))},
            )
        try:
            kind = settings_class(self.family, str(tag))
        except KindError as error:
            raise PydanticCustomError("kind_unknown", "{text}", {"key": place.key, "text": str(error)}) from None
        # what is wrong inside is told with its own path
        return kind.model_validate(dict(value), context=info.context if place.presets else None)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self.validate, metadata={"pydantic_js_functions": [self.json_schema]}
        )

    def json_schema(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Any of the family's own kinds, or one from outside, of which an editor knows nothing."""
        place = FAMILIES[self.family]
        inner: list[JsonSchemaValue] = [
            kind.__get_pydantic_json_schema__(kind.__pydantic_core_schema__, handler) for kind in members(self.family)
        ]
        outside = {"type": "object", "properties": {place.key: {"type": "string", "pattern": ":"}}}
        return {"anyOf": [*inner, {**outside, "required": [place.key]}]}
