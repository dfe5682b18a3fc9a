"""The trainer's state in one file: weights, the optimiser's moments, the best weights, and where training stands.

One safetensors file, replaced atomically: a kill at any moment leaves the last complete state.
"""

from __future__ import annotations

import json
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
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Put a checkpoint back into the model and the optimiser.

    Returns:
        the best weights and the progress; None when there is no checkpoint.
    Raises:
        ArtifactError: the file is not a checkpoint of this model.
    """
    for leftover in half_written(path.parent):  # of a trainer that was killed while it saved
        leftover.unlink(missing_ok=True)
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        progress = json.loads((file.metadata() or {})["progress"])
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    try:
        model.load_state_dict(parts["model"])
    except RuntimeError as error:
        raise ArtifactError(f"{path}: is not a checkpoint of this model ({error}); remove it to start afresh") from None
    parameters = dict(model.named_parameters())
    for name, value in parts["optimizer"].items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        # Adam counts its steps on the CPU unless it is fused, where it counts beside the parameter
        optimizer.state[parameter][key] = value.to(parameter.device)
    return parts["best"], progress
