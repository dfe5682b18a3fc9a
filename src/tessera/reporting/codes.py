"""What the page says of semantic IDs: their health, and a tree to walk through."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera.artifacts.codes import read_codes
from tessera.artifacts.files import read_json
from tessera.artifacts.tables import ArtifactError
from tessera.reporting import code_plots
from tessera.reporting.code_tree import tree_data
from tessera.reporting.plots import Plot
from tessera.reporting.representations import Files
from tessera.reporting.samples import Catalogue
from tessera.settings.base import did_you_mean

CODE_COLUMNS = (
    ("items", "Items", ",.0f"),
    ("collision_rate", "Collisions", ".2%"),
    ("largest_group", "Largest group", ",.0f"),
    ("used", "Codes used", ".1%"),
    ("evenness", "Perplexity", ".1%"),
    ("unexplained", "Unexplained", ".1%"),
    ("cosine", "Cosine", ".3f"),
    ("cosine_by_chance", "Cosine by chance", ".3f"),
    ("tau_latent", "τ latent", ".3f"),
    ("tau_reconstruction", "τ decoded", ".3f"),
    ("abundance", "Directions", ".1f"),
)
"""Key, header, format."""


@dataclass(frozen=True)
class SemanticIdSection:
    """Semantic IDs of a dataset."""

    rows: list[tuple[str, str, list[tuple[float | None, str]]]]
    """Recipe (and part), the codes of its levels, and a value and its text for each of `CODE_COLUMNS`."""
    plots: list[Plot]
    tree: str
    """JSON for the page's script; empty where there is nothing to show."""


def semantic_ids(
    catalogue: Catalogue, codes: Files, health: Files, most: int, elsewhere: Container[int] = ()
) -> SemanticIdSection | None:
    """The health of every recipe and part, and the tree of their codes; None where there is neither.

    Args:
        codes: name -> codes (Parquet).
        health: name -> what was measured of them (JSON).
        most: items in the trees.
        elsewhere: items whose pictures the explorer of item tables holds.
    Raises:
        ArtifactError: a file is missing or lacks a key.
    """
    if not codes and not health:
        return None
    parts: dict[str, Mapping[str, Any]] = {}
    for name, path in health.items():
        described = _read(Path(path))
        for part in described:
            parts[name if len(described) == 1 else f"{name}: {part['name']}"] = part
    rows = [
        (name, _levels(part), [_cell(part, key, form) for key, _, form in CODE_COLUMNS]) for name, part in parts.items()
    ]
    drawn = [code_plots.use(parts), code_plots.groups(parts), code_plots.residuals(parts)]
    plots = [plot for plot in drawn if plot is not None] + code_plots.purity(parts) + code_plots.spectra(parts)
    count = catalogue.table.num_rows
    recipes = {name: read_codes(path, count) for name, path in codes.items()}
    return SemanticIdSection(rows, plots, tree_data(catalogue, recipes, most, elsewhere))


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected what was measured of semantic IDs")
    content = read_json(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("parts"), list):
        raise ArtifactError(f"{path}: lacks the key 'parts'")
    for part in content["parts"]:
        for key in ("name", "sizes", "extra", "items", "groups", "levels"):
            if key not in part:
                raise ArtifactError(f"{path}: part {part.get('name')!r} lacks the key {key!r}{did_you_mean(key, part)}")
    return list(content["parts"])


def _levels(part: Mapping[str, Any]) -> str:
    """`256 × 256 + 3`: codes of each level, and of the one that only tells items apart."""
    sizes = [f"{size:,}" for size in part["sizes"]]
    return " + ".join([" × ".join(sizes[:-1]), sizes[-1]]) if part["extra"] else " × ".join(sizes)


def _cell(part: Mapping[str, Any], key: str, form: str) -> tuple[float | None, str]:
    value = _value(part, key)
    return value, "–" if value is None else format(value, form)


def _value(part: Mapping[str, Any], key: str) -> float | None:
    levels = part["levels"][: len(part["levels"]) - part["extra"]]
    order, spectrum = part.get("order") or {}, part.get("spectrum") or {}
    number: float | None
    match key:
        case "used":
            number = float(sum(level["used"] for level in levels) / sum(level["size"] for level in levels))
        case "evenness":
            number = float(sum(level["perplexity"] / level["size"] for level in levels) / len(levels))
        case "tau_latent" | "tau_reconstruction":
            agreement = order.get(key.removeprefix("tau_"))
            number = agreement["tau_a"] if agreement else None
        case "unexplained" | "cosine" | "cosine_by_chance":
            number = (part.get("reconstruction") or {}).get(key)
        case "abundance":
            number = spectrum["latent"]["centred"]["information_abundance"] if "latent" in spectrum else None
        case _:
            number = part.get(f"meaningful_{key}", part.get(key))
    return number
