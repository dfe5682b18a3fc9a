"""The cluster that the Slurm tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from slurm_cluster import Cluster, Unavailable, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running Slurm; tests are skipped, with the reason, where it cannot be started."""
    try:
        with running() as found:
            yield found
    except Unavailable as reason:
        pytest.skip(str(reason))
