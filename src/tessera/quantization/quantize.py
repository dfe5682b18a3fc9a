"""The stage that makes semantic IDs: fit a quantiser to item tables, give every item its codes, settle collisions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tessera.artifacts.codes import ABSENT, Part, SemanticIds, write_codes
from tessera.artifacts.files import file_digest, write_text
from tessera.artifacts.logs import log
from tessera.artifacts.models import write_model
from tessera.artifacts.tables import ArtifactError, describe
from tessera.data.dataset import load_dataset
from tessera.quantization.base import Codes, Fitted, Quantizer
from tessera.quantization.conflicts import Resolved, resolve
from tessera.quantization.vectors import PartVectors, read_parts, refuse_alike
from tessera.settings.kinds import implementation
from tessera.settings.quantizers.base import Codes as CodeSettings
from tessera.settings.quantizers.base import QuantizerSettings
from tessera.settings.references import CODES_A_TABLE
from tessera.training.machine import state_identity


def quantize(
    settings: QuantizerSettings,
    tables: Mapping[str, Path],
    source: Path | None,
    data: Path,
    output: Path,
    state: Path,
    code: str,
) -> None:
    """Write semantic IDs: `output` (codes.parquet); model.safetensors, model.json and history.jsonl beside it.

    Args:
        settings: the quantiser.
        tables: the item tables it names, in that order; none for given codes.
        source: the file of given codes.
        data: folder of the prepared dataset.
        output: `codes.parquet`.
        state: where trainers keep what they need to go on after a kill.
        code: hash of the code, part of the state's name.
    Raises:
        ArtifactError: a table is not one of this dataset, is constant, or leaves too few items to fit.
        ValueError: collisions cannot be settled as asked for, or training failed.
    """
    code_of = implementation(settings)
    if not isinstance(settings, CodeSettings):
        assert source is not None
        ids = code_of.read(settings, source, data / "items.parquet")
        digests = {"source": file_digest(source)}
        _write(output, settings, ids, digests, Quantizer(settings, []), [], [{} for _ in ids.parts])
        return
    dataset = load_dataset(data)
    parts = read_parts(tables, dataset.n_items, together=CODES_A_TABLE not in settings.offers())
    digests = {name: file_digest(path) for name, path in tables.items()}
    folder = state / state_identity(
        settings.canonical(), code, *digests.values(), file_digest(data / "interactions.parquet")
    )  # fmt: skip
    fitting = fit_items(parts, tables, dataset.train_counts, max(settings.sizes))
    fitted: Fitted = code_of.fit(settings, [part.rows(fitting) for part in parts], folder)
    quantizer = Quantizer(settings, fitted.parts)
    ids, counts = assign_items(quantizer, parts)
    _write(output, settings, ids, digests, quantizer, fitted.history, counts)
    fitted.clear()


def fit_items(
    parts: Sequence[PartVectors], tables: Mapping[str, Path], train_counts: np.ndarray, most: int
) -> np.ndarray:
    """(n,) items that a quantiser is fitted to: those of any part; with vectors of a run, those ever trained on.

    Raises:
        ArtifactError: a part has fewer of them than codes to choose from, or one vector for all of them.
    """
    taking = np.logical_or.reduce([part.present for part in parts])
    if any("run" in describe(path)["inputs"] for path in tables.values()):
        cold = int((taking & (train_counts == 0)).sum())
        taking &= train_counts > 0
        if cold:
            log.info("%d items without a training interaction get codes, but the quantiser is not fitted to them", cold)
    for part in parts:
        count, every = int((part.present & taking).sum()), int(part.present.sum())
        if count < 2:
            raise ArtifactError(
                f"semantic IDs of {part.name}: {count} of {every:,} items have a training interaction, and codes are "
                "fitted to these; expected 2 or more"
            )
        if count < most:
            raise ArtifactError(
                f"semantic IDs of {part.name}: {count} items to fit {most} codes a level; set codes to {count} or fewer"
            )
        log.info("%s: fitted to %d of %d items", part.name, count, len(train_counts) - 1)
    refuse_alike(parts, tables, taking)
    return np.flatnonzero(taking)


def assign_items(quantizer: Quantizer, parts: Sequence[PartVectors]) -> tuple[SemanticIds, list[dict[str, int]]]:
    """The codes of every item that has a row, collisions settled, and how many of them there were in each part."""
    described, columns, counts = [], [], []
    owned = [np.flatnonzero(part.present) for part in parts]
    rows = [part.vectors[items] for part, items in zip(parts, owned, strict=True)]
    settings = quantizer.settings
    for number, (part, items, codes) in enumerate(zip(parts, owned, quantizer.assign(rows), strict=True)):
        fitted = quantizer.parts[number]

        def distances(some: Codes, number: int = number, codes: Codes = codes) -> np.ndarray:
            return quantizer.distances(number, rows[number][some], codes[some])

        resolved: Resolved = resolve(settings.conflicts, codes, distances, fitted.sizes)
        log.info(
            "%s: %d of %d items have codes, %d collide, %d after conflicts: %s (%d items moved)",
            part.name, len(items), len(part.present) - 1, resolved.before, resolved.after, settings.conflicts,
            resolved.moved,
        )  # fmt: skip
        described.append(Part(part.name, resolved.sizes, fitted.ordered, resolved.extra))
        columns.append(np.full((len(part.present), len(resolved.sizes)), ABSENT, np.int64))
        columns[-1][items] = resolved.codes
        counts.append(
            {"items": len(items), "before": resolved.before, "after": resolved.after, "moved": resolved.moved}
        )
    return SemanticIds(np.concatenate(columns, 1), tuple(described)), counts


def _write(
    output: Path,
    settings: QuantizerSettings,
    ids: SemanticIds,
    digests: Mapping[str, str],
    quantizer: Quantizer,
    history: Sequence[Mapping[str, Any]],
    counts: Sequence[Mapping[str, int]],
) -> None:
    description = settings.model_dump(mode="json")
    write_codes(output, ids, description, digests)
    write_text(output.with_name("history.jsonl"), "".join(json.dumps(row) + "\n" for row in history))
    parts = [
        {
            "name": part.name,
            "sizes": list(part.sizes),
            "ordered": part.ordered,
            "extra": part.extra,
            "collisions": dict(c),
        }
        for part, c in zip(ids.parts, counts, strict=True)
    ]
    write_model(
        output.with_name("model.safetensors"),
        quantizer.tensors(),
        {"settings": description, "inputs": dict(digests), "parts": parts},
    )
