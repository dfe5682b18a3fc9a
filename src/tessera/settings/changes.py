"""Settings with some keys changed: what a search chose, put into a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tessera.settings.base import Settings, did_you_mean
from tessera.settings.runs import Run
from tessera.settings.systems.backbone_base import UnderBackbones

HEADS = ("training", "loss", "backbones", "systems")
"""What a path may begin with; behind the last two stands a name. Of two that lead to one key the later one counts."""


def replaced(settings: Settings, keys: Sequence[str], value: Any) -> Settings:
    """Settings with one key changed, however deep. What was said of them, and what is a default, stays told apart.

    Raises:
        ValueError: there is no such key, or it cannot have this value.
    """
    whole = settings.model_dump(mode="json")
    part = whole
    for key in keys[:-1]:
        part = _below(part, key)
    _below(part, keys[-1], last=True)
    part[keys[-1]] = value
    changed = type(settings).model_validate(whole)
    _as_said(changed, settings, keys)
    return changed


def _as_said(changed: Settings, before: Settings, keys: Sequence[str]) -> None:
    """Let only those fields count as said that were, and the one that is changed."""
    changed.model_fields_set.intersection_update(before.model_fields_set | set(keys[:1]))
    for name in type(changed).model_fields:
        own, old = getattr(changed, name), getattr(before, name, None)
        if isinstance(own, Settings) and isinstance(old, Settings):
            _as_said(own, old, keys[1:] if keys[:1] == [name] else ())


def _below(part: Any, key: str, last: bool = False) -> Any:
    if not isinstance(part, dict) or key not in part:
        raise ValueError(f"unknown key {key!r}{did_you_mean(key, part if isinstance(part, dict) else ())}")
    if not last and not isinstance(part[key], dict):
        raise ValueError(f"{key!r} holds {part[key]!r}, and no keys")
    return part[key]


def below(path: str, settings: Settings) -> tuple[str, list[str]]:
    """The field of a run that a path leads into, and the keys behind it.

    What a system or a backbone says of `training`, and a system of its loss, is resolved in a run: there it is changed.

    Args:
        settings: those of the name in the path.
    """
    head, *keys = path.split(".")
    if head in ("training", "loss"):
        return head, keys
    keys = keys[1:]
    if keys[:1] == ["training"] or (
        head == "systems" and keys[:1] == ["loss"] and isinstance(settings, UnderBackbones)
    ):
        return keys[0], keys[1:]
    return {"backbones": "backbone", "systems": "method"}[head], keys


def with_values(run: Run, values: Mapping[str, Any]) -> Run:
    """A run with chosen settings: the values of paths, which go before whatever a system or a backbone says of itself.

    Raises:
        ValueError: a path leads to no key of the run.
    """
    for path in sorted(values, key=lambda path: HEADS.index(path.partition(".")[0])):
        field, keys = below(path, run.method)
        run = run.model_copy(update={field: replaced(getattr(run, field), keys, values[path])})
    return run.model_copy(update={"chosen": {**run.chosen, **values}})


def as_trained(run: Run, described: Mapping[str, Any]) -> Run:
    """A run with what a search chose for it, and for the runs that it is made of.

    Args:
        described: the run as its `model.json` describes it.
    """
    members = zip(run.members, described.get("members", [{}] * len(run.members)), strict=True)
    run = with_values(run, described.get("chosen", {}))
    return run.model_copy(update={"members": [as_trained(member, its) for member, its in members]})
