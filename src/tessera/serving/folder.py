"""The files of a finished run, where the workflow left them or in a folder of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from tessera.artifacts.files import file_digest, read_json
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.places import FINISH, place
from tessera.artifacts.run_folder import DESCRIPTION, ITEMS, POPULARITY, RunFolder
from tessera.artifacts.tables import ArtifactError, describe
from tessera.data.dataset import ids_digest, read_raw_ids
from tessera.data.files import find, model_files
from tessera.recommenders.inputs import RunInputs
from tessera.settings.language import BuiltModel, FolderModel
from tessera.settings.runs import Run
from tessera.settings.training import LoopSettings


@dataclass(frozen=True)
class RunFiles:
    """A run, and the files that it is made of."""

    folder: Path
    run: Run
    items: Path
    inputs: RunInputs

    @property
    def root(self) -> Path:
        """Where tables, embedders and models lie: the dataset's folder, or that of a saved run."""
        return self.folder if self.items.parent == self.folder else self.items.parents[1]

    @property
    def model(self) -> Path:
        """The weights."""
        return self.folder / "model.safetensors"

    def popularity(self) -> npt.NDArray[np.int64] | None:
        """(items + 1,) training interactions an item of a saved run; None where the dataset tells them."""
        path = self.items.with_name(POPULARITY)
        return np.asarray(read_tensors(path)["popularity"].numpy(), np.int64) if path.is_file() else None


def run_files(folder: str | Path) -> RunFiles:
    """The files of a run, `<dataset>/runs/<system>/<recommender>/seed-<n>`, or of a folder that `save` wrote.

    Raises:
        ArtifactError: it holds no run of a recommender, or a file that the run reads is missing, or is not the
            one that it was trained on.
        FileNotFoundError: there is no such folder; the message names the nearest.
    """
    folder = find(str(Path(folder).expanduser().absolute()))
    run = _read_run(folder)
    where = RunFolder(folder)
    saved, root = where.saved, where.root
    inputs = RunInputs(
        tables={name: str(root / place("table", name)) for name in run.tables},
        codes=next((str(root / place("semantic_ids", name)) for name in run.named("semantic_ids")), None),
    )
    models = [root / place("model", name) for name in run.named("models")]
    if isinstance(run.model, BuiltModel):
        inputs = inputs.model_copy(update={"model": str(models[0])})
    elif isinstance(run.model, FolderModel) and saved:
        run = _reads_model(run, str(models[0]))
    files = RunFiles(folder, run, where.items, inputs)
    _check(files, saved)
    _check_same(files)
    return files


def _reads_model(run: Run, folder: str) -> Run:
    """A run that reads its language model in this folder, as its members do."""
    members = [_reads_model(member, folder) for member in run.members]
    model = run.model.model_copy(update={"folder": folder}) if run.model is not None else None
    return run.model_copy(update={"model": model, "members": members})


def _runs_below(folder: Path) -> Iterator[Path]:
    """Folders of runs in a folder, and of nothing else that was trained."""
    for path in sorted(folder.glob(f"**/{DESCRIPTION}")) if folder.is_dir() else []:
        with suppress(OSError, ValueError, AttributeError):
            if read_json(path).get("run") is not None:
                yield path.parent


def _read_run(folder: Path) -> Run:
    description = folder / DESCRIPTION
    if folder.is_file():
        raise ArtifactError(f"{folder}: is a file, and a run is a folder; did you mean {folder.parent}?")
    if not description.is_file():
        below = list(islice(_runs_below(folder), 3))
        hint = f"; did you mean {' or '.join(map(str, below))}?" if below else ""
        raise ArtifactError(f"{folder}: holds no finished run (no model.json){hint}")
    read = read_json(description)
    described = read.get("run") if isinstance(read, dict) else None
    if described is None:
        raise ArtifactError(f"{folder}: is no run of a recommender, but what a run may read: load the run itself")
    try:
        return Run.model_validate(_as_written_today(described))
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "run"
        raise ArtifactError(
            f"{description}: not a recommender's run that this Tessera reads: {where}: {wrong['msg']}"
        ) from None


def _as_written_today(described: Any) -> Any:
    """A description without keys of loops that have another name today: no result depends on them."""
    if isinstance(described, list):
        return [_as_written_today(part) for part in described]
    if not isinstance(described, dict):
        return described
    return {key: _as_written_today(part) for key, part in described.items() if key not in LoopSettings.RENAMED}


def _check(files: RunFiles, saved: bool) -> None:
    counted = POPULARITY if saved else "interactions.parquet"
    needed = [files.model, files.items, files.items.with_name(counted), *map(Path, files.inputs.tables.values())]
    if files.inputs.codes:
        needed += [Path(files.inputs.codes), Path(files.inputs.codes).with_name("model.safetensors")]
    needed += [Path(files.inputs.model)] if files.inputs.model else []
    if missing := [str(path) for path in needed if not path.exists()]:
        raise ArtifactError(
            f"{files.folder}: the run reads files that are not there: {', '.join(missing)}; "
            "load it where it was trained and `save` it, or run the workflow again"
        )


def _check_same(files: RunFiles) -> None:
    """The dataset, tables and codes may have been made anew since: the weights would be read with items and vectors
    that they do not know."""
    description = read_json(files.folder / DESCRIPTION)
    known = (description.get("trained_on") or {}).get("items")
    if known not in (None, ids_digest(read_raw_ids(files.items.parent, "items"))):
        raise ArtifactError(
            f"{files.items}: are not the items that {files.run.path} was trained on: the dataset was made anew since; "
            "run the workflow, which trains the run again"
        )
    inputs = description.get("inputs", {})
    for name, path in files.inputs.read_again().items():
        if inputs.get(name) not in (None, file_digest(path)):
            raise ArtifactError(
                f"{path}: is not the {name} that {files.run.path} was trained on, but was made anew since; "
                "run the workflow, which trains the run again"
            )


def check_new(target: str | Path) -> Path:
    """A folder as a full path, which must be new or empty.

    Raises:
        FileExistsError: the folder is there already and holds something.
    """
    target = Path(target).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target}: is there already; name a new folder")
    return target


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that becomes it when the block ends well, and vanishes otherwise."""
    check_new(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        made = Path(name) / "run"
        made.mkdir()
        yield made
        if target.exists():
            target.rmdir()
        made.rename(target)


def save_run(files: RunFiles, popularity: npt.NDArray[np.int64], target: str | Path) -> Path:
    """Copy a run with all that it reads into a new folder, whole or not at all.

    Raises:
        FileExistsError: the folder is there already and holds something.
    """
    target = check_new(target)
    with new_folder(target) as made:
        copy_run(files, popularity, made)
    return target


def copy_run(files: RunFiles, popularity: npt.NDArray[np.int64], made: Path) -> None:
    """Copy a run with all that it reads into an empty folder."""
    for source, local in _copied(files):
        (made / local).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, made / local)
    import torch

    write_tensors(made / POPULARITY, {"popularity": torch.from_numpy(popularity)})


def _read_with(root: Path, name: str, path: Path) -> Iterator[tuple[Path, str]]:
    """(file, its place) of what makes rows of new items for a table: how its rows were finished, the embedder, and the
    language model, where one was built."""
    made = describe(path)["settings"]
    if "table" not in made:
        return
    reader = made["table"].get("model") or (made.get("start") or {}).get("model")
    finish, embedder = place("table", name, FINISH), place("embedder", name)
    for local in (finish, embedder, place("embedder", name, DESCRIPTION)):
        if (root / local).is_file():
            yield root / local, local
    if reader and (folder := root / place("model", reader)).is_dir():
        yield from ((file, f"{place('model', reader)}/{file.name}") for file in model_files(folder))


def _copied(files: RunFiles) -> list[tuple[Path, str]]:
    """(file, its place in the saved folder)."""
    run, inputs = files.run, files.inputs
    copies = [(files.model, "model.safetensors"), (files.folder / DESCRIPTION, DESCRIPTION), (files.items, ITEMS)]
    for name, path in inputs.tables.items():
        copies.append((Path(path), place("table", name)))
        copies += _read_with(files.root, name, Path(path))
    for name in run.named("semantic_ids"):
        for file in ("codes.parquet", "model.safetensors"):
            copies.append((Path(str(inputs.codes)).with_name(file), place("semantic_ids", name, file)))
    for name in run.named("models"):
        if isinstance(run.model, FolderModel):
            folder = find(run.model.folder)
        elif inputs.model:
            folder = Path(inputs.model)
        else:
            continue  # of the hub or of a package: found again by its name
        copies += [(path, f"{place('model', name)}/{path.name}") for path in model_files(folder)]
    return copies
