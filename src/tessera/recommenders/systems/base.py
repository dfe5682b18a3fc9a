"""What a system is: a module with three functions, or two where it is fitted by counting, found by its settings."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from tessera.evaluation.judge import Scorer
from tessera.recommenders.inputs import RunInputs
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.training.phases import Batches


class System(Protocol):
    """A system that is trained. Called with a batch, its network gives (sum of losses, number of targets)."""

    def build(self, run: Run, inputs: RunInputs, popularity: np.ndarray) -> nn.Module:
        """The untrained network; the caller has seeded torch. `popularity` is (items + 1,) training interactions."""
        ...

    def batches(self, network: Any, run: Run, offsets: np.ndarray, items: np.ndarray) -> Batches:
        """What an epoch goes through: training histories as the network reads them."""
        ...

    def scorer(self, network: Any, run: Run, device: torch.device) -> Scorer:
        """The network as it stands behind the judge's interface."""
        ...


class Counted(Protocol):
    """A system that is fitted by counting."""

    def fit(self, settings: Any, offsets: np.ndarray, items: np.ndarray, count: int) -> dict[str, Tensor]:
        """What is counted in training histories over `count` items."""
        ...

    def Scorer(self, settings: Any, tensors: dict[str, Tensor]) -> Scorer:  # noqa: N802  (a class of the module)
        """What was counted, behind the judge's interface."""
        ...


def system(run: Run) -> System:
    """The code of a trained run's system."""
    return cast(System, implementation(run.method))


def counted(run: Run) -> Counted:
    """The code of a system that is fitted by counting."""
    return cast(Counted, implementation(run.method))
