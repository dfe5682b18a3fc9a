"""The trainer's state in one file: weights, the optimiser's moments, the best weights, and where training stands.

One safetensors file, replaced atomically: a kill at any moment leaves the last complete state.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tessera.artifacts.files import half_written
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.tables import ArtifactError


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            found[f"optimizer/{names[id(parameter)]}/{key}"] = value
    return found


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    progress: dict[str, Any],
) -> None:
    """Write everything that training needs to go on; `progress` is JSON."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    tensors |= _moments(model, optimizer)
    # copies, for safetensors refuses tensors that share memory; not on a GPU, which may have no room for them
    copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
    write_tensors(path, copies, {"progress": json.dumps(progress)})


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, own: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Put a checkpoint back into the model and the optimiser.

    Args:
        path: of the checkpoint.
        model: which it is of.
        optimizer: of the model's parameters.
        own: the trainer's progress as it stands: names and kinds of what the checkpoint has to hold.
    Returns:
        the best weights and the progress; None when there is no checkpoint.
    Raises:
        ArtifactError: the file is damaged, or not a checkpoint of this model. Nothing is trained afresh without a word.
    """
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        tensors = read_tensors(path)
        with safe_open(path, "pt") as file:
            progress = json.loads((file.metadata() or {}).get("progress", "null"))
        parts = _parts(tensors)
        _check_progress(progress, own)
        _check_tensors(parts, model)
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ArtifactError(f"{path}: training cannot go on from here: {reason}; remove it to start afresh") from None
    model.load_state_dict(parts["model"])
    parameters = dict(model.named_parameters())
    for name, value in parts["optimizer"].items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        # Adam counts its steps on the CPU unless it is fused, where it counts beside the parameter
        optimizer.state[parameter][key] = value.to(parameter.device)
    return parts["best"], progress


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise ValueError(f"it is no checkpoint (it holds {name})")
        parts[part][rest] = value
    return parts


def _check_progress(progress: Any, own: Mapping[str, Any]) -> None:
    if not isinstance(progress, dict) or set(progress) != set(own):
        raise ValueError("it does not say where training stood")
    for name, value in own.items():
        found = progress[name]
        # what is not finite is written as null
        kinds = (int, float, type(None)) if isinstance(value, float) else type(value)
        if not isinstance(found, kinds) or isinstance(found, bool):
            raise ValueError(f"{name} is {found!r}")


def _check_tensors(parts: Mapping[str, Mapping[str, Tensor]], model: nn.Module) -> None:
    wanted = {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}
    for part in ("model", "best"):
        found = {name: (value.shape, value.dtype) for name, value in parts[part].items()}
        if found != wanted and (part == "model" or found):
            odd = min(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise ValueError(f"it is of another model ({odd} differs)")
    parameters = dict(model.named_parameters())
    for name, value in parts["optimizer"].items():
        parameter = parameters.get(name.rpartition("/")[0])
        if parameter is None or value.shape not in (parameter.shape, torch.Size()):
            raise ValueError(f"it is of another optimiser ({name} differs)")


# ---------------------------------------------------------------- what is left over

_STATE = re.compile(r"[0-9a-f]{20}")
"""Names of state folders."""
_OLD = 3600.0
"""Seconds after which such a file in the state of another training, or an empty folder, belongs to nobody."""


def tidy(state: Path) -> None:
    """Remove what killed trainings left: half-written files of this state, those of others that nobody writes any more,
    and empty folders of states. The caller is the one training whose state it is."""
    for half in half_written(state):
        half.unlink(missing_ok=True)
    if not _STATE.fullmatch(state.name):
        return
    long_ago = time.time() - _OLD
    for other in state.parent.glob("*/"):
        if other == state or not _STATE.fullmatch(other.name):
            continue
        with suppress(OSError):  # another training may be doing the same
            for half in half_written(other):
                if half.stat().st_mtime < long_ago:
                    half.unlink(missing_ok=True)
            if not any(other.iterdir()) and other.stat().st_mtime < long_ago:
                other.rmdir()


def clear(path: Path) -> None:
    """Remove a checkpoint, what half of it was ever written, and its folder unless something else is in it."""
    path.unlink(missing_ok=True)
    tidy(path.parent)
    with suppress(OSError):
        path.parent.rmdir()
