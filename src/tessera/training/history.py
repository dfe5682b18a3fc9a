"""The curve of a training, as a file; `trackers.py` tells it while it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tessera.artifacts.files import write_text


def write_history(path: str | Path, history: list[dict[str, Any]]) -> None:
    """Write the training curve: a JSON line a row."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in history))
