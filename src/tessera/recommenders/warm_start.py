"""Training that goes on from a finished run: its weights, item by item, onto the catalogue of another dataset.

What has a row an item (`item_rows`) is taken by raw id: items that stay keep their rows, added ones keep those that the
seed gave them, those of items that are gone are dropped. All else is taken as it is. The optimiser starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.codes import read_codes
from tessera.artifacts.files import file_digest, read_json
from tessera.artifacts.logs import log
from tessera.artifacts.models import read_model
from tessera.artifacts.places import place
from tessera.artifacts.run_folder import RunFolder
from tessera.artifacts.tables import describe, read_item_table
from tessera.data.clock import Clock
from tessera.data.dataset import TRAIN, Dataset, ids_digest, read_raw_ids
from tessera.data.held_out import Moment, data_digest, first_held_out, last_trained, moment, seen_before, split_kind
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Recommender
from tessera.settings.references import named
from tessera.settings.runs import Run


class WarmStartError(ValueError):
    """A run that another cannot go on from."""


class Matched(NamedTuple):
    """Items of two catalogues, by raw id."""

    here: Tensor
    """(kept,) ids of the items that stay."""
    there: Tensor
    """(kept,) their ids in the catalogue of the earlier run."""
    added: int
    gone: int

    def __str__(self) -> str:
        return f"{len(self.here):,} items kept, {self.added:,} added, {self.gone:,} gone"


@dataclass(frozen=True)
class Start:
    """A finished run that training goes on from."""

    files: RunFolder
    weights: dict[str, Tensor]
    description: dict[str, Any]
    raw_ids: list[str]
    """By dense id, the padding first."""

    def match(self, raw_ids: list[str]) -> Matched:
        """Its items and those of another catalogue.

        Raises:
            WarmStartError: no item is in both.
        """
        there = {raw: number for number, raw in enumerate(self.raw_ids) if number}
        kept = [number for number, raw in enumerate(raw_ids) if number and raw in there]
        if not kept:
            raise WarmStartError(
                f"{self.files.items}: none of its {len(there):,} items (the first is {self.raw_ids[1]!r}) is in the "
                f"dataset (the first is {raw_ids[1]!r}); training.warm_start takes a run on the same catalogue"
            )
        return Matched(
            torch.tensor(kept),
            torch.tensor([there[raw_ids[number]] for number in kept]),
            len(raw_ids) - 1 - len(kept),
            len(there) - len(kept),
        )


def trained_on(data: Path, dataset: Dataset, raw_ids: list[str]) -> dict[str, Any]:
    """What a run says of what its training saw, for those that go on from it."""
    last = last_trained(dataset)
    return {
        "interactions": int(dataset.train_counts.sum()),
        "data": data_digest(data),
        "split": split_kind(data),
        "last": last._asdict() if last else None,
        "items": ids_digest(raw_ids),
    }


def read_start(model: str | Path) -> Start:
    """A run by its weights.

    Raises:
        WarmStartError: its items are not those that it was trained on.
        ArtifactError: one of its files is missing or damaged.
    """
    files = RunFolder(Path(model).parent)
    weights, description = read_model(files.model)
    raw_ids = read_raw_ids(files.data, "items")
    known = description.get("trained_on", {}).get("items")
    if description.get("items") != len(raw_ids) - 1 or known not in (None, ids_digest(raw_ids)):
        raise WarmStartError(
            f"{files.items}: holds {len(raw_ids) - 1} items, which are not the {description.get('items')} that "
            f"{files.folder} was trained on: the dataset was made anew since; `save` a run before its dataset changes"
        )
    return Start(files, weights, description, raw_ids)


@dataclass(frozen=True)
class Begin:
    """A start that fits: what is put into a freshly built system before it is trained."""

    start: Start
    matched: Matched
    remarks: list[str]
    """What must be said beside every number."""

    def described(self) -> dict[str, Any]:
        """For the description of the run that goes on."""
        weights = self.start.files.model
        counts = {"kept": len(self.matched.here), "added": self.matched.added, "gone": self.matched.gone}
        return {"model": str(weights), "weights": file_digest(weights), **counts}

    def into(self, model: Recommender) -> None:
        """See `go_on`."""
        go_on(model, self.start, self.matched)
        log.info("continues from %s: %s", self.start.files.folder, self.matched)


def begin(run: Run, inputs: RunInputs, data: Path, dataset: Dataset, raw_ids: list[str]) -> Begin | None:
    """What a run goes on from; None where it begins anew.

    Raises:
        WarmStartError: it cannot go on from there, or must not.
        ValueError: the weights were not given.
    """
    if run.training.warm_start is None:
        return None
    if inputs.start is None:
        raise ValueError(f"system {run.system!r} goes on from {run.training.warm_start}, but no weights were given")
    start = read_start(inputs.start)
    matched = start.match(raw_ids)
    check_inputs(run, inputs, start, matched)
    return Begin(start, matched, check_held_out(start, data, dataset))


def go_on(model: Recommender, start: Start, matched: Matched) -> None:
    """Put the weights of an earlier run into a freshly built system.

    Raises:
        WarmStartError: it is another system, or one of another shape, or does not say which weights have a row an item.
    """
    try:
        by_item, anew = set(model.item_rows()), set(model.made_anew())
    except ValueError as error:
        raise WarmStartError(f"training.warm_start: {start.files.folder}: {error}") from None
    own = model.state_dict()
    if odd := sorted(own.keys() ^ start.weights.keys()):
        which = "lacks" if odd[0] in own else "holds"
        raise WarmStartError(f"{start.files.model}: {which} {odd[0]}, unlike the system that is to go on from it")
    taken = {name: value for name, value in own.items() if name not in anew}
    for name, value in taken.items():
        before = start.weights[name]
        rows = name in by_item
        expected = (len(start.raw_ids), *value.shape[1:]) if rows else tuple(value.shape)
        if tuple(before.shape) != expected:
            raise WarmStartError(
                f"{start.files.model}: {name} has shape {tuple(before.shape)}, expected {expected} as the system that "
                "is to go on from it"
            )
    with torch.no_grad():
        for name, value in taken.items():
            before = start.weights[name].to(value.device)
            if name in by_item:
                value[0] = before[0]
                value[matched.here.to(value.device)] = before[matched.there.to(value.device)]
            else:
                value.copy_(before)


def check_inputs(run: Run, inputs: RunInputs, start: Start, matched: Matched) -> None:
    """Whether the files that a run reads mean what those of the earlier run meant, as far as weights depend on it.

    Raises:
        WarmStartError: items that stay have other codes now, or the language model is another one.
    """
    recorded = start.description.get("inputs", {})
    now = inputs.read_again()
    if "language model" in now and recorded.get("language model") != file_digest(now["language model"]):
        raise WarmStartError(
            f"{now['language model']}: is not the language model that {start.files.folder} was trained with, and its "
            "adapters fit no other; name one that stays the same under models: {folder: PATH}"
        )
    if inputs.codes is not None:
        (name,) = run.named("semantic_ids")
        _check_codes(name, inputs.codes, start, matched)
    before = start.description["run"].get("tables", [])
    for (name, path), earlier in zip(inputs.tables.items(), before, strict=False):
        file = start.files.root / place("table", earlier)
        if file.is_file() and recorded.get(f"table {earlier}") == file_digest(file):
            _tell_table(name, Path(path), file, len(start.raw_ids) - 1, matched)


def _check_codes(name: str, path: str, start: Start, matched: Matched) -> None:
    earlier = Run.model_validate(start.description["run"])
    (before,) = named(earlier.method, "semantic_ids")
    file = start.files.root / place("semantic_ids", before)
    hint = "give codes that stay the same: semantic_ids: {quantizer: given, path: FILE}"
    if not file.is_file() or start.description.get("inputs", {}).get("codes") != file_digest(file):
        raise WarmStartError(
            f"{file}: the semantic IDs that {start.files.folder} was trained on are not there any more, so nobody can "
            f"say what its code vectors mean; {hint}"
        )
    ours = read_codes(path, len(matched.here) + matched.added)
    theirs = read_codes(file, len(start.raw_ids) - 1)
    sizes = [[part.sizes for part in ids.parts] for ids in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise WarmStartError(
            f"{path}: semantic IDs {name!r} have levels of {sizes[0]} codes, expected {sizes[1]} as in {file}; {hint}"
        )
    differ = (ours.codes[matched.here.numpy()] != theirs.codes[matched.there.numpy()]).any(1)
    if differ.any():
        first = start.raw_ids[int(matched.there[int(np.flatnonzero(differ)[0])])]
        raise WarmStartError(
            f"{path}: {int(differ.sum()):,} of {len(differ):,} items that stay have other semantic IDs {name!r} than "
            f"in {file} (the first is {first!r}), so its code vectors mean something else now; {hint}"
        )


_SAME = 0.99
"""Mean cosine of an item's vectors in two tables from which on they are the same table in practice."""


def _tell_table(name: str, path: Path, before: Path, items: int, matched: Matched) -> None:
    """Warn where the vectors of items that stay are others than those that the weights were learned on."""
    if any(describe(file).get("kind") != "item_table" for file in (path, before)):
        return
    ours, here = read_item_table(path, len(matched.here) + matched.added)
    theirs, there = read_item_table(before, items)
    both = here[matched.here.numpy()] & there[matched.there.numpy()]
    if ours.shape[1] != theirs.shape[1] or not both.any():
        return
    a, b = torch.from_numpy(ours)[matched.here][both], torch.from_numpy(theirs)[matched.there][both]
    alike = float(torch.nn.functional.cosine_similarity(a, b).mean())
    if alike < _SAME:
        log.warning(
            "table %s: the vectors of items that stay have a mean cosine of %.2f with those that the weights "
            "were learned on (%s): what reads the table has to be learned anew; a warm start gives little there",
            name, alike, before,
        )  # fmt: skip


# ---------------------------------------------------------------- what was seen before

UNKNOWN = "goes on from a run of which nobody knows whether it was trained on interactions that are held out here"


def check_held_out(start: Start, data: Path, dataset: Dataset) -> list[str]:
    """Refuse a start that was trained on what the dataset holds out.

    Returns:
        what must be said beside every number, where that cannot be known.
    Raises:
        WarmStartError: under a split by time, it was trained on anything as late as the first interaction that does not
            train here; under others, it was trained on one of those that are held out.
    """
    if bool((dataset.split == TRAIN).all()):
        return []
    last, first = moment(start.description.get("trained_on", {}).get("last")), first_held_out(dataset)
    earlier = last.before(first) if last is not None and first is not None else None
    if earlier:
        return []
    if earlier is False and split_kind(data) == "global_temporal":
        assert last is not None
        assert first is not None
        raise WarmStartError(
            f"training.warm_start: {start.files.folder} was trained on interactions up to {_told(last)}, but this "
            f"dataset validates and tests on those from {_told(first)} on: set split.valid and split.test to later "
            "days, or start from a run that was trained before"
        )
    for folder in _lineage(start):
        seen = seen_before(data, folder) if folder is not None else None
        if seen is None:
            log.warning("%s: %s", start.files.folder, UNKNOWN)
            return [UNKNOWN]
        if seen.number:
            raise WarmStartError(
                f"training.warm_start: {start.files.folder} was trained on {seen.number:,} of the {seen.of:,} "
                f"interactions that are held out here (in {folder}; one is of user {seen.user!r} and item "
                f"{seen.item!r}): start from a run that was trained without them, or cut by time "
                "(split: {kind: global_temporal})"
            )
    return []


def _told(moment: Moment) -> str:
    return Clock(moment.unit, moment.dated).text(moment.ticks)


def _lineage(start: Start) -> Iterator[Path | None]:
    """Folders of the datasets that a run was trained on, its own and those of the runs that it went on from; None where
    one is not there any more, or is another by now."""
    files, description = start.files, start.description
    while True:
        whole = all((files.data / f"{name}.parquet").is_file() for name in ("interactions", "users", "items"))
        same = whole and description.get("trained_on", {}).get("data") == data_digest(files.data)
        yield files.data if same else None
        before = description.get("warm_start")
        if before is None:
            return
        files = RunFolder(Path(before["model"]).parent)
        if not files.model.is_file() or file_digest(files.model) != before["weights"]:
            yield None
            return
        description = read_json(files.description)


def latest(own: Any, start: Start | None) -> Any:
    """When the last interaction was that a run or those before it were trained on; None where nobody knows."""
    if start is None:
        return own
    ours, theirs = moment(own), moment(start.description.get("trained_on", {}).get("last"))
    if ours is None or theirs is None or ours.dated != theirs.dated:
        return None
    return (theirs if ours.before(theirs) else ours)._asdict()
