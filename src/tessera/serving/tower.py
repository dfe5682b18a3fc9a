"""The user tower as ONNX: ids of a history in, the user's vector out."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import Catalogue, VectorRecommender

MOST_INSIDE = 1 << 30
"""Bytes of weights that stand in the file itself; more lie in `<name>.data` beside it (a file holds 2 GiB)."""
CLOSE = 1e-4
"""Of the largest number of a user's vector: what float32 in another order may differ by."""
_MOST_ROWS = 1 << 15


class TowerError(Exception):
    """A system whose user tower cannot be written, with what is in the way."""


class UserTower(nn.Module):
    """A system's way from items to a user's vector, its item vectors as they are now."""

    def __init__(self, model: VectorRecommender, catalogue: Catalogue) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        self.register_buffer("vectors", catalogue.read.detach().float().cpu())

    def forward(self, items: Tensor) -> Tensor:
        """(batch, dim), or (batch, K, dim) of a system with K vectors a user.

        Args:
            items: (batch, length) int64 item ids, oldest first, padded on the right with 0.
        """
        lengths = (items > 0).sum(1).clamp(min=1)
        nobody = torch.zeros_like(lengths)
        assert isinstance(self.vectors, Tensor)
        users = self.model.users(Histories(items, lengths, nobody), Catalogue(self.vectors, self.vectors))
        return users[:, 0] if users.shape[1] == 1 else users


def write_tower(model: VectorRecommender, catalogue: Catalogue, path: Path) -> float:
    """Write the tower and ask it beside the system: the largest difference, relative to the vectors, is given back.

    The file takes any batch, and any length up to the system's `max_history`.

    Raises:
        TowerError: there is no graph of the system, or it gives other vectors.
    """
    tower = UserTower(model, catalogue)
    batch = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    longest = model.max_history or 1 << 20
    # the exporter refuses a range of one length, as a system that reads one item has it
    length = torch.export.Dim("length", min=1, max=longest) if longest > 1 else torch.export.Dim.STATIC
    size = sum(part.nbytes for part in [*tower.parameters(), *tower.buffers()])
    # sizes that nothing within a system has: tracing may take what is equal in the example for equal always
    example = torch.arange(1, 12)[:, None] % len(catalogue.read) + torch.zeros(1, min(7, model.max_history or 7)).long()
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                tower,
                (example,),
                path,
                input_names=["items"],
                output_names=["user"],
                dynamic_shapes={"items": {0: batch, 1: length}},
                dynamo=True,
                external_data=size > MOST_INSIDE,
                verbose=False,
            )
    except Exception as error:  # whatever a graph cannot hold: tracing meets it in all its own ways
        path.unlink(missing_ok=True)
        said = next(iter(str(error).strip().splitlines()), "")[:200]
        raise TowerError(f"no ONNX graph of it can be made ({type(error).__name__}: {said})") from error
    _strip(path)
    worst = 0.0
    for items in _histories(len(catalogue.read) - 1, model.max_history or 50):
        try:
            with torch.no_grad():
                wanted = tower(torch.from_numpy(items)).numpy()
            vectors = run_tower(path, items)
        except Exception as error:
            path.unlink(missing_ok=True)
            said = f"{type(error).__name__}: {str(error)[:200]}"
            raise TowerError(f"its ONNX graph does not take histories of shape {items.shape} ({said})") from error
        scale = max(float(np.abs(wanted).max()), 1e-12)
        worst = max(worst, float(np.abs(vectors - wanted).max()) / scale if vectors.shape == wanted.shape else np.inf)
    if not worst <= CLOSE:
        path.unlink(missing_ok=True)
        raise TowerError(f"its ONNX graph gives other vectors (they differ by {worst:.1e})")
    return worst


def run_tower(path: Path, items: np.ndarray) -> np.ndarray:
    """Vectors of users by onnxruntime, on the CPU in one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    vectors: np.ndarray = session.run(None, {"items": items})[0]
    return vectors


def _histories(items: int, longest: int) -> Iterator[np.ndarray]:
    """Histories of several shapes: alone and together, short and as long as can be, padded and not."""
    rng = np.random.default_rng(1)
    for rows, length in ((1, 1), (1, longest), (4, longest), (7, max(1, longest // 2)), (2, 1)):
        histories = rng.integers(1, items + 1, (rows, length))
        histories[np.arange(length) >= rng.integers(1, length + 1, (rows, 1))] = 0
        yield histories


def _strip(path: Path) -> None:
    """Take out where the graph was made: lines of code and folders of this machine."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False)
    for part in [graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer]:
        part.ClearField("metadata_props")
    for function in graph.functions:
        function.ClearField("metadata_props")
        for node in function.node:
            node.ClearField("metadata_props")
    onnx.save(graph, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of every package that it could have used."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
