"""The prepared dataset of the pattern, once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from pattern import write_dataset


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))
