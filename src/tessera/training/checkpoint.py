"""The trainer's state in one file: weights, the optimiser's moments, the best weights, and where training stands.

One safetensors file, replaced atomically: a kill at any moment leaves the last complete state.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tessera.artifacts.files import half_written
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.tables import ArtifactError


class Trained(nn.Module):
    """What training changes of a model, under its own names: what a checkpoint of it holds.

    These are parameters that require gradients, and persistent buffers, such as moving averages (changed in place).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", "/"), parameter)
        kept = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in kept:
                self.register_buffer(name.replace(".", "/"), buffer)


class Checkpoint(NamedTuple):
    """What was read of one."""

    model: dict[str, Tensor]
    best: dict[str, Tensor]
    """The best weights so far; empty where there are none."""
    moments: dict[str, Tensor]
    """Of the optimisers, by parameter and key."""
    progress: dict[str, Any]


def _moments(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"optimizer/{names[id(parameter)]}/{key}": value
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizers: Iterable[torch.optim.Optimizer],
    best: Mapping[str, Tensor],
    progress: Mapping[str, Any],
) -> None:
    """Write everything that training needs to go on; `progress` is JSON. No two optimisers share a parameter."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    tensors |= _moments(model, optimizers)
    write_tensors(path, _apart(tensors), {"progress": json.dumps(progress)})


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same in the CPU's memory, none sharing it with another, which safetensors refuses; copied only for that."""
    apart: dict[str, Tensor] = {}
    met: set[int] = set()
    for name, value in tensors.items():
        own = value.detach().cpu()
        memory = own.untyped_storage().data_ptr()
        apart[name] = own.clone() if memory in met else own
        met.add(memory)
    return apart


def read_checkpoint(path: Path, model: nn.Module, own: Mapping[str, Any]) -> Checkpoint | None:
    """A checkpoint, checked against the model; nothing is changed.

    Args:
        path: of the checkpoint.
        model: which it is of.
        own: the engine's progress as it stands: names and kinds of what the checkpoint has to hold.
    Returns:
        None when there is no checkpoint.
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
    return Checkpoint(parts["model"], parts["best"], parts["optimizer"], progress)


def restore_moments(
    moments: Mapping[str, Tensor], model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> None:
    """Put what optimisers remembered back into those of the same parameters."""
    parameters = dict(model.named_parameters())
    owners = {
        id(parameter): optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, value in moments.items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        # Adam counts its steps on the CPU unless it is fused, where it counts beside the parameter
        owners[id(parameter)].state[parameter][key] = value.to(parameter.device)


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
        saved = progress[name]
        # what is not finite is written as null
        kinds = (int, float, type(None)) if isinstance(value, float) else type(value)
        if not isinstance(saved, kinds) or isinstance(saved, bool) != isinstance(value, bool):
            raise ValueError(f"{name} is {saved!r}")


def _check_tensors(parts: Mapping[str, Mapping[str, Tensor]], model: nn.Module) -> None:
    wanted = {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}
    for part in ("model", "best"):
        saved = {name: (value.shape, value.dtype) for name, value in parts[part].items()}
        if saved != wanted and (part == "model" or saved):
            odd = min(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
            raise ValueError(f"it is of another model ({odd.replace('/', '.')} differs)")
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
    leave(path.parent)


def leave(state: Path) -> None:
    """Remove the folder of a state, and that of its job, unless something else is in them."""
    for folder in (state, state.parent):
        with suppress(OSError):
            folder.rmdir()
