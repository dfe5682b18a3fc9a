"""One synthetic results/ tree for all tests of reporting."""

from __future__ import annotations

from pathlib import Path

import pytest
import reporting_world


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results/ tree with tables and report; tests must not write into it."""
    tree = reporting_world.make(tmp_path_factory.mktemp("world"))
    reporting_world.write_report(tree)
    return tree
