"""Keys of a config that nothing reads beside the others: settings declare them (`Settings.unread`), here they are told.

Refused is what a person wrote: a value other than the default, that no preset gave. What another row of the section
says and reads may stand, as in a row that varies another (`{<<: *row, gate: global}`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tessera.settings.base import ConfigError, Settings, did_you_mean, shown_value

Place = tuple[str, ...]
"""Where something stands in a config: keys and names, from the top."""


@dataclass(frozen=True)
class UnreadKey:
    """A key that nothing reads beside the others."""

    place: Place
    why: str
    value: Any
    said: bool
    """Whether a person wrote it."""

    @property
    def path(self) -> str:
        """Where it stands, as messages tell it."""
        return ".".join(self.place)

    @property
    def text(self) -> str:
        """What is wrong with it."""
        value = self.value
        shown = value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Settings) else value
        return f"{self.why}; leave it out (got {shown_value(shown)})"


def said_in_vain(config: Settings) -> Iterator[tuple[str, str]]:
    """Keys of a config that are said and that nothing reads, as (path, what is wrong)."""
    keys = {key.place: key for key in unread_keys(config)}
    for key in keys.values():
        if key.said and all(other in keys for other in _beside(config, key)):
            yield key.path, key.text


def unread_keys(value: Any, place: Place = (), default: Any = None) -> Iterator[UnreadKey]:
    """All keys at and below a value that nothing reads, said or not.

    Args:
        value: settings, or what holds some.
        place: where it stands.
        default: what stands there where nobody says it.
    Raises:
        ConfigError: settings from outside declare a key that they do not have.
    """
    if isinstance(value, Settings):
        for why, keys in value.unread():
            for key in keys:
                parts = tuple(key.split("."))
                if parts[0] not in type(value).model_fields:
                    kind, hint = type(value), did_you_mean(parts[0], type(value).model_fields)
                    raise ConfigError(f"{kind.__module__}:{kind.__name__}: unread: {key!r} is no key of it{hint}")
                if not _has(value, parts):  # of a section that is null
                    continue
                own = _value(value, parts)
                yield UnreadKey((*place, *parts), why, own, value.says(key) and own != _default(value, parts, default))
        for name in type(value).model_fields:
            yield from unread_keys(getattr(value, name), (*place, name), _default(value, (name,), default))
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from unread_keys(part, (*place, str(name)))
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from unread_keys(part, (*place, str(number)))


def _default(settings: Settings, parts: Place, default: Any) -> Any:
    """What a key is where nobody says it; `default` is what the whole settings are then."""
    name, *rest = parts
    field = type(settings).model_fields[name]
    known = type(default) is type(settings)
    own = getattr(default, name) if known else field.get_default(call_default_factory=True, validated_data={})
    within = getattr(settings, name)
    return _default(within, tuple(rest), own) if rest and isinstance(within, Settings) else own


def _value(settings: Any, parts: Place) -> Any:
    """What stands at a place below settings; None where there is nothing."""
    for part in parts:
        settings = getattr(settings, part, None)
    return settings


def _beside(config: Settings, key: UnreadKey) -> Iterator[Place]:
    """Where a key stands in other rows of its section that say the same."""
    here: Any = config
    for number, name in enumerate(key.place):
        rest = key.place[number + 1 :]
        if isinstance(here, Mapping):
            for other, row in here.items():
                says = other != name and _has(row, rest) and row.says(".".join(rest))
                if says and _value(row, rest) == key.value:
                    yield (*key.place[:number], str(other), *rest)
        here = _below(here, name)


def _below(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name)
    return value[int(name)] if isinstance(value, (list, tuple)) else getattr(value, name, None)


def _has(settings: Any, parts: Place) -> bool:
    """Whether settings have a key, however deep."""
    if not parts or not isinstance(settings, Settings) or parts[0] not in type(settings).model_fields:
        return False
    return len(parts) == 1 or _has(getattr(settings, parts[0]), parts[1:])
