"""Sequential recommenders and the item representations that feed them. `tessera.load` opens a finished run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tessera.serving.recommender import Recommender

# numpy's linear algebra in one thread, set before numpy is loaded: principal components would differ in their last
# digits with the number of threads. torch, where the long work is, has threads of its own.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

__version__ = "0.7.0"
__all__ = ["__version__", "load"]


def load(folder: str | Path, device: str = "auto") -> Recommender:
    """Open a finished run, e.g. `results/my/shop/runs/reaemb/sasrec/seed-1`, or a folder that its `save` wrote.

    Args:
        folder: of the run.
        device: auto, cpu or cuda.
    Raises:
        tessera.artifacts.tables.ArtifactError: the folder holds no run of a recommender, or a file that it reads is
            missing; the message names it.
        FileNotFoundError: there is no such folder.
    """
    # torch is loaded when a run is, not by everybody who reads a version
    from tessera.serving import recommender

    return recommender.load(folder, device)
