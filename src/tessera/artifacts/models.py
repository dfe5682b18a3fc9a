"""Model artifacts: `model.safetensors` with `model.json` beside it. No pickle anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera import __version__
from tessera.artifacts.files import atomic, read_json, write_json
from tessera.artifacts.tables import ArtifactError

if TYPE_CHECKING:
    import torch


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors atomically as safetensors."""
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        # metadata without a key, and no tensor, would make a file that cannot be read
        header = dict(metadata) if metadata else None
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, header)


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read named tensors.

    Raises:
        ArtifactError: the file is damaged.
    """
    from safetensors.torch import load_file

    with _whole(path):
        return dict(load_file(path))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The same as arrays, without torch.

    Raises:
        ArtifactError: the file is damaged.
    """
    from safetensors.numpy import load_file

    with _whole(path):
        return dict(load_file(path))


@contextmanager
def _whole(path: str | Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ArtifactError(f"{path}: is cut off, damaged or no safetensors file ({error})") from None


def write_model(path: str | Path, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]) -> None:
    """Write the weights to `path` (.safetensors) and the settings that made them to the .json beside it."""
    path = Path(path)
    write_tensors(path, tensors)
    write_json(path.with_suffix(".json"), {"tessera": __version__, **description})


def read_model(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and their description.

    Raises:
        ArtifactError: one of the two files is missing or damaged.
    """
    path = Path(path)
    for needed in (path, path.with_suffix(".json")):
        if not needed.is_file():
            raise ArtifactError(f"{needed}: no such file; a model is {path.name} and {path.with_suffix('.json').name}")
    description = read_json(path.with_suffix(".json"))
    if not isinstance(description, dict):
        raise ArtifactError(f"{path.with_suffix('.json')}: does not describe a model; remove {path} to make it again")
    return read_tensors(path), description
