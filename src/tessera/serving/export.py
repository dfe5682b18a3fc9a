"""A finished run in a folder to hand on: weights, ids, item vectors, index, user tower, codes and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera import __version__
from tessera.artifacts.codes import ABSENT, read_codes
from tessera.artifacts.files import read_json, write_json, write_text
from tessera.artifacts.logs import log
from tessera.artifacts.models import write_tensors
from tessera.artifacts.places import place, validated_name
from tessera.data.dataset import load_dataset
from tessera.data.hub import push_folder, token_problem
from tessera.evaluation.judge import Scorer, reads_times, users_at_once
from tessera.recommenders.systems.base import VectorScorer
from tessera.serving.card import Facts, model_card
from tessera.serving.catalogue import Catalogue
from tessera.serving.folder import RunFiles, check_new, copy_run, new_folder
from tessera.serving.index import build, check_kind, recalls
from tessera.serving.lists import states_after
from tessera.serving.tower import TowerError, write_tower
from tessera.settings.export import Export, onnx_problem

CARD = "README.md"
DESCRIPTION = "export.json"
ITEM_IDS = "item_ids.json"
VECTORS = "item_vectors.safetensors"
INDEX = "index.faiss"
TOWER = "user_tower.onnx"
CODES = "semantic_ids.json"

QUERIES = 1000
"""Vectors of users by which recall is measured."""
FILES = {
    "model.safetensors": "weights",
    "model.json": "resolved settings of the run, fingerprints of what it read, how training went",
    "items.parquet": "the catalogue: item (dense id), raw_id, title, attributes",
    "popularity.safetensors": "training interactions an item",
    "tables/": "item tables that the run reads",
    "semantic_ids/": "semantic IDs that the run reads, with their quantiser",
    "models/": "the language model that the run reads",
    ITEM_IDS: "raw item ids; the place of an id in the list is its dense id, place 0 is the padding",
    VECTORS: "`vectors` (items + 1, dim), row 0 the padding: what a user's vector is multiplied with; "
    "`bias` (items + 1,) where items have one",
    INDEX: "a faiss index of these vectors over inner products, whose ids are the dense ones",
    TOWER: "`items` (batch, length) int64 dense ids, oldest first, 0 on the right where a history is shorter; "
    "`user` is the user's vector",
    f"{TOWER}.data": f"weights of {TOWER}",
    CODES: "items by their semantic IDs, for every table that was quantised",
    DESCRIPTION: "what is in this folder, for programs",
}
"""What is in the files, by the first part of their path."""


@dataclass
class _Outcome:
    """What was made of the vectors, and what was not, with the reason."""

    described: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def export_run(
    files: RunFiles,
    scorer: Scorer,
    catalogue: Catalogue,
    settings: Export,
    target: str | Path,
    metrics: Path | None = None,
) -> Path:
    """Write the folder, whole or not at all, and send it where `settings.push` says so.

    Args:
        metrics: of the judged run; None where it was not judged.
    Raises:
        FileExistsError: the folder is there already and holds something.
        ValueError: a package or a token is missing, or the items are too few for the index.
    """
    target = check_new(target)
    run = files.run
    if isinstance(scorer, VectorScorer):
        check_kind(settings.index, len(catalogue))
        if settings.onnx and run.model is None and (problem := onnx_problem()):
            raise ValueError(f"onnx: {problem}")
    if settings.push is not None and (problem := token_problem()):
        raise ValueError(f"push: {problem}")
    with new_folder(target) as made:
        copy_run(files, catalogue.popularity, made)
        write_json(made / ITEM_IDS, [None, *catalogue.raw_ids[1:]])
        outcome = _Outcome()
        if isinstance(scorer, VectorScorer):
            _write_vectors(files, scorer, catalogue, settings, made, outcome)
        else:
            reason = f"{run.system} scores items without vectors of users and items"
            outcome.absent |= dict.fromkeys(("item vectors", "index", "user tower"), reason)
        if files.inputs.codes is not None:
            write_json(made / CODES, codes_of_items(Path(files.inputs.codes), catalogue.raw_ids))
        else:
            outcome.absent["semantic IDs"] = "the run reads none"
        described = {"tessera": __version__, "run": run.path, "items": len(catalogue), **outcome.described}
        write_json(made / DESCRIPTION, {**described, "absent": outcome.absent})
        contents = {name: FILES[name] for name in FILES if (made / name.rstrip("/")).exists()}
        trained = read_json(files.model.with_suffix(".json"))
        judged = read_json(metrics) if metrics is not None else None
        elsewhere = metrics is not None and metrics.parent.resolve() != files.folder.resolve()
        judged_on = validated_name(files.root.name) if elsewhere else None
        data = _data(files, catalogue)
        card = Facts(run, settings, contents, outcome.described, outcome.absent, data, trained, judged, judged_on)
        write_text(made / CARD, model_card(card))
    for what, why in outcome.absent.items():
        log.info("no %s: %s", what, why)
    if settings.push is not None:
        push_folder(target, settings.push)
    return target


def metrics_of(files: RunFiles) -> Path | None:
    """The metrics of a run where the workflow left it; those of a final run are of the one that was validated."""
    own = files.folder / "metrics.json"
    judged = files.root.with_name(validated_name(files.root.name)) / place("run", files.run.path, own.name)
    return next((path for path in (own, judged) if path.is_file()), None)


def _write_vectors(
    files: RunFiles, scorer: VectorScorer, catalogue: Catalogue, settings: Export, made: Path, outcome: _Outcome
) -> None:
    """Item vectors, their index with its recall, and the user tower."""
    items = scorer.prepared
    tensors = {"vectors": items.scored.detach().float().cpu()}
    if items.bias is not None:
        tensors["bias"] = items.bias.detach().float().cpu()
    write_tensors(made / VECTORS, tensors)
    vectors = tensors["vectors"][1:].numpy()
    bias = tensors["bias"][1:].numpy() if items.bias is not None else None

    histories, whose = _asked(files, len(catalogue))
    states = states_after(scorer, histories, users_at_once(len(catalogue)))
    users = states.reshape(-1, states.shape[-1])
    index = build(vectors, bias, settings.index, users)
    index.write(made / INDEX)
    measured = recalls(index, vectors, bias, users)
    shares = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
    log.info("index: %s of %s items; %s", index.kind, f"{len(catalogue):,}", shares)
    outcome.described |= {
        "dim": vectors.shape[1],
        "vectors_a_user": states.shape[1] if states.ndim == 3 else 1,
        "bias": bias is not None,
        "max_history": scorer.max_history,
        "judged_with_times": reads_times(scorer),
        "index": {
            "kind": index.kind,
            "width": index.width,
            **index.settings,
            "recall": measured,
            "measured_on": f"{len(histories):,} {whose}",
        },
    }
    if not settings.onnx:
        outcome.absent["user tower"] = "it was not asked for"
    elif files.run.model is not None:
        outcome.absent["user tower"] = "histories are read by a language model, whose weights are files of their own"
    else:
        try:
            worst = write_tower(scorer.model, items, made / TOWER)
            outcome.described["onnx"] = {"difference": worst}
        except TowerError as error:
            log.warning("no %s: %s", TOWER, error)
            outcome.absent["user tower"] = str(error)


def _asked(files: RunFiles, items: int) -> tuple[list[npt.NDArray[np.int32]], str]:
    """Histories by which recall is measured, and whose they are: users of the dataset, else of one item each."""
    if not files.items.with_name("interactions.parquet").is_file():
        chosen = np.unique(np.linspace(1, items, min(items, QUERIES)).astype(np.int32))
        return [np.array([item], np.int32) for item in chosen], "histories of one item"
    dataset = load_dataset(files.items.parent)
    users = np.flatnonzero(np.diff(dataset.offsets))
    users = users[np.unique(np.linspace(0, len(users) - 1, min(len(users), QUERIES)).astype(np.int64))]
    return [dataset.items[dataset.offsets[user] : dataset.offsets[user + 1]] for user in users], "users of the dataset"


def codes_of_items(path: Path, raw_ids: Sequence[str]) -> list[dict[str, Any]]:
    """A part for every table that was quantised: its levels, and the raw ids of the items of each semantic ID.

    A semantic ID is its codes with a blank between them; several items may share one.
    """
    ids = read_codes(path, len(raw_ids) - 1)
    parts = []
    for number, part in enumerate(ids.parts):
        items: dict[str, list[str]] = {}
        for item, codes in enumerate(ids.of(number).tolist()):
            if item and codes[0] != ABSENT:
                items.setdefault(" ".join(map(str, codes)), []).append(raw_ids[item])
        parts.append({"table": part.name, "sizes": list(part.sizes), "items": items})
    return parts


def _data(files: RunFiles, catalogue: Catalogue) -> Mapping[str, Any]:
    """What is known of the data set: its name and counts where it is there, else of the catalogue alone."""
    description: dict[str, Any] = {"items": len(catalogue), "training interactions": int(catalogue.popularity.sum())}
    stats = files.items.with_name("stats.json")
    if stats.is_file():
        counts = json.loads(stats.read_text(encoding="utf-8")).get("counts", {})
        description = {"name": files.root.name, "users": counts.get("users"), **description}
    return description
