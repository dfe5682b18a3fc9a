"""One real run of the tiny config, in a copy of the repository, that all workflow tests look at."""

from __future__ import annotations

import pytest
from tiny_project import Project, copy_repository


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny config, run to its end. Tests leave it as it is."""
    project = Project(tmp_path_factory.mktemp("tiny") / "tessera", forks=False)
    copy_repository(project.folder)
    # on slow cores that others use too, a hundred jobs take longer than what a test may take by itself
    done = project.snakemake("--cores", "2", "--configfile", "config/tiny.yaml", timeout=1500)
    assert done.returncode == 0, done.stdout[-6000:]
    return project
