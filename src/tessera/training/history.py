"""The curve of a training, as a file and as events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tessera.artifacts.files import write_text
from tessera.training.errors import TrainingError


def write_history(path: str | Path, history: list[dict[str, Any]]) -> None:
    """Write the training curve: a JSON line a row."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in history))


def event_writer(folder: Path) -> Any:
    """A writer of TensorBoard events.

    Raises:
        TrainingError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "training.tensorboard needs the extra: pip install -e '.[tensorboard]' -c constraints.txt"
        ) from None
    return SummaryWriter(str(folder))
