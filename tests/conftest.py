"""What every test shares: one quiet thread, and where real data lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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


@lru_cache
def _group(file: str) -> str:
    """Tests of a file stay together, for their fixtures; and all files that look at the one finished run, made once."""
    looks = file.startswith("tests/workflow/") and "finished: Project" in (ROOT / file).read_text(encoding="utf-8")
    return "finished" if looks else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole groups go to the processes that share the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.partition("::")[0])

    return ByGroup(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the groups that drive other programs evenly among the others where several processes share the tests.

    They wait a lot and start processes of their own: not all workers should have such a group at once.
    """
    if not hasattr(config, "workerinput"):  # of pytest-xdist
        return
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_group(item.nodeid.partition("::")[0]), []).append(item)
    alone = {name for name in groups if name.startswith(("tests/unit/", "tests/gpu/"))}
    kinds = [[group for name, group in groups.items() if (name in alone) == of] for of in (False, True)]
    spread = [(number / len(kind), group) for kind in kinds for number, group in enumerate(kind)]
    items[:] = [item for _, group in sorted(spread, key=lambda pair: pair[0]) for item in group]


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
