"""A training that is asked to stop, as SIGTERM asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tessera.artifacts.logs import Terminated
from tessera.training.engine import Engine


@contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    """What trains inside is stopped before its step of this number, from 0; it must come to that step."""
    step, taken = Engine._step, 0

    def stopping(self: Engine, *arguments: Any) -> None:
        nonlocal taken
        if taken == steps:
            raise Terminated
        taken += 1
        step(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_step", stopping)
        with pytest.raises(Terminated):
            yield
