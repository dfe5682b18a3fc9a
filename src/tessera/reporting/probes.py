"""What the page says of probes: how well attributes are read off the vectors of each item table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import ArtifactError
from tessera.evaluation.probes import MOST_ITEMS

_NAME = 60
"""Most characters of an attribute's name."""
_UNPROBED = 12
"""Most attributes that are named as not probed."""
KEYS = {"probes": False, "hidden_probes": True}
"""Of diagnostics: the catalogue's own attributes, and the truth of a generated world, which is hidden."""
NEEDED = ("accuracy", "balanced", "majority", "values", "judged")


class Attribute(NamedTuple):
    """What is probed. A column of the items and the truth behind it may share a name; their labels differ."""

    name: str
    hidden: bool


class ProbeCell(NamedTuple):
    """One probe."""

    value: float | None
    """Accuracy; None where the table has no such probe."""
    text: str
    more: str
    """What is shown on hover."""
    best: bool = False


class ProbedAttribute(NamedTuple):
    """A column."""

    name: str
    values: str
    """How many values there are to tell apart."""
    hidden: bool
    """Whether only the truth of a generated world has it."""


@dataclass(frozen=True)
class ProbeTable:
    """Rows are tables, columns attributes."""

    attributes: list[ProbedAttribute]
    majority: list[ProbeCell]
    """The share of the most frequent value: the first row."""
    rows: list[tuple[str, bool, list[ProbeCell]]]
    """Table, whether it was made of the truth itself, and its probes."""
    notes: list[str]


def probe_table(diagnostics: Mapping[str, Mapping[str, Any]], paths: Mapping[str, object]) -> ProbeTable | None:
    """The probes of every table of a dataset; None where no attribute was probed.

    Args:
        diagnostics: table -> its diagnostics.
        paths: table -> their file, for messages.
    Raises:
        ArtifactError: a probe lacks a key.
    """
    probes = {name: _probes(read, paths[name]) for name, read in diagnostics.items()}
    attributes = list(dict.fromkeys(attribute for own in probes.values() for attribute in own))
    if not attributes:
        return None
    bounds = {name for name, read in diagnostics.items() if read.get("bound")}
    best = {attribute: _best(attribute, probes, bounds) for attribute in attributes}
    rows = [
        (name, name in bounds, [_cell(own.get(attribute), name == best[attribute]) for attribute in attributes])
        for name, own in probes.items()
    ]
    columns = [_column(attribute, probes) for attribute in attributes]
    majority = [_majority(attribute, probes) for attribute in attributes]
    return ProbeTable(columns, majority, rows, _notes(diagnostics, attributes, bounds))


def _probes(diagnostics: Mapping[str, Any], path: object) -> dict[Attribute, Mapping[str, float]]:
    """All probes of a table, those of the catalogue's own attributes first."""
    own = {
        Attribute(name, hidden): probe
        for key, hidden in KEYS.items()
        for name, probe in diagnostics.get(key, {}).items()
    }
    for attribute, probe in own.items():
        for key in NEEDED:
            if key not in probe:
                raise ArtifactError(f"{path}: the probe of {attribute.name!r} lacks the key {key!r}")
    return own


def _best(attribute: Attribute, probes: Mapping[str, Mapping[Attribute, Any]], bounds: set[str]) -> str | None:
    """The table that knows an attribute best, of those that had to find it out and beat the most frequent value."""
    rivals = {
        name: own[attribute]["accuracy"]
        for name, own in probes.items()
        if attribute in own and name not in bounds and own[attribute]["accuracy"] > own[attribute]["majority"]
    }
    return max(rivals, key=lambda name: rivals[name], default=None)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _cell(probe: Mapping[str, float] | None, best: bool) -> ProbeCell:
    if probe is None:
        return ProbeCell(None, "–", "not probed")
    more = (
        f"{_percent(probe['accuracy'])} % of {probe['judged']:,} items, {_percent(probe['balanced'])} % as the mean "
        f"over {probe['values']} values; the most frequent value: {_percent(probe['majority'])} %"
    )
    return ProbeCell(probe["accuracy"], _percent(probe["accuracy"]), more, best)


def _column(attribute: Attribute, probes: Mapping[str, Mapping[Attribute, Any]]) -> ProbedAttribute:
    counts = sorted({own[attribute]["values"] for own in probes.values() if attribute in own})
    shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return ProbedAttribute(one_line(attribute.name, _NAME), shown, attribute.hidden)


def _majority(attribute: Attribute, probes: Mapping[str, Mapping[Attribute, Any]]) -> ProbeCell:
    """The largest over the tables: they differ where tables lack items."""
    share = max(own[attribute]["majority"] for own in probes.values() if attribute in own)
    return ProbeCell(share, _percent(share), "share of the most frequent value")


def _notes(diagnostics: Mapping[str, Mapping[str, Any]], attributes: list[Attribute], bounds: set[str]) -> list[str]:
    notes = [
        "Percent of items whose value a linear probe (multinomial logistic regression) reads off the vector, judged on "
        "items that it was not fitted on; on hover the mean over values"
    ]
    if hidden := [one_line(attribute.name, _NAME) for attribute in attributes if attribute.hidden]:
        notes.append(f"hidden: truth of the generated world, read from no column of its items: {', '.join(hidden)}")
    if bounds:
        notes.append("bound: made of the true attributes themselves")
    shown = {attribute.name for attribute in attributes}
    lacking = dict.fromkeys(name for read in diagnostics.values() for name in read.get("unprobed", []))
    if unprobed := [name for name in lacking if name not in shown]:
        named = [one_line(name, _NAME) for name in unprobed[:_UNPROBED]]
        more = f" and {len(unprobed) - len(named)} more" if len(unprobed) > len(named) else ""
        notes.append(f"not probed (texts, numbers, or too few items): {', '.join(named)}{more}")
    every = [probe for read in diagnostics.values() for key in KEYS for probe in read.get(key, {}).values()]
    left_out = max((probe.get("left_out", 0) for probe in every), default=0)
    if left_out:
        notes.append(f"up to {left_out:,} items of rare values or beyond a sample of {MOST_ITEMS:,} are left out")
    return notes
