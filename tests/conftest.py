"""What every test shares: one quiet thread, and where real data lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

# Before numpy or torch is imported: several test processes share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

ROOT = Path(__file__).resolve().parents[1]

NEEDED = {"unit": ("polars", "snakemake"), "workflow": ("polars", "snakemake"), "slurm": ("snakemake",),
          "browser": ("polars", "playwright")}  # fmt: skip
"""What the tests of a folder import. A CUDA image that lacks it still runs tests/gpu."""


def _absent(package: str) -> bool:
    try:
        return find_spec(package) is None
    except (ImportError, ValueError):
        return True


LACKING = {folder: lacking for folder, needed in NEEDED.items() if (lacking := [p for p in needed if _absent(p)])}
collect_ignore = list(LACKING)


def pytest_report_header() -> list[str]:
    """Folders that are left out, and why."""
    return [
        f"tests/{folder} is left out: {', '.join(lacking)} cannot be imported" for folder, lacking in LACKING.items()
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which tests stay together where several processes share them (`--dist loadgroup`).

    Those of a file do, for their fixtures; and all that look at the one finished run, which is made once.
    """
    if config.getoption("dist", "no") != "loadgroup":
        return
    for item in items:
        one = "finished" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("finished" if one else item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def data_root() -> Callable[..., Path]:
    """`data_root("ml-100k", "u.data")`: a real file or folder; the test is skipped, saying so, where it is absent.

    Real data is looked for in the folder that `TESSERA_DATA` names, else in `../shared/data` beside the repository.
    """

    def find(*parts: str) -> Path:
        base = Path(os.environ.get("TESSERA_DATA", ROOT.parent / "shared" / "data"))
        path = base.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"real data absent: {path} (set TESSERA_DATA to the folder that holds it)")
        return path

    return find
