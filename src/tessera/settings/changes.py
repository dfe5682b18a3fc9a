"""Settings with some keys changed: what a search chose, put into a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tessera.settings.base import Settings, did_you_mean
from tessera.settings.runs import Run


def replaced(settings: Settings, keys: Sequence[str], value: Any) -> Settings:
    """Settings with one key changed, however deep.

    Raises:
        ValueError: there is no such key, or it cannot have this value.
    """
    whole = settings.model_dump(mode="json")
    part = whole
    for key in keys[:-1]:
        part = _below(part, key)
    _below(part, keys[-1], last=True)
    part[keys[-1]] = value
    return type(settings).model_validate(whole)


def _below(part: Any, key: str, last: bool = False) -> Any:
    if not isinstance(part, dict) or key not in part:
        raise ValueError(f"unknown key {key!r}{did_you_mean(key, part if isinstance(part, dict) else ())}")
    if not last and not isinstance(part[key], dict):
        raise ValueError(f"{key!r} holds {part[key]!r}, and no keys")
    return part[key]


def with_values(run: Run, values: Mapping[str, Any]) -> Run:
    """A run with chosen settings: the values of paths, which go before whatever a system or a backbone says of itself.

    Raises:
        ValueError: a path leads to no key of the run.
    """
    for path, value in values.items():
        head, *keys = path.split(".")
        field = {"backbones": "backbone", "systems": "method"}.get(head, head)
        keys = keys[1:] if head in ("backbones", "systems") else keys
        run = run.model_copy(update={field: replaced(getattr(run, field), keys, value)})
    return run.model_copy(update={"chosen": {**run.chosen, **values}})
