"""The page that was there before: it stays until the new one is whole, and counts as out of date meanwhile.

Snakemake leaves the old page alone when the output is flagged `update`, and copies it back when the job fails; then the
copy is newer than what the page is made of, and would never be made again. On a cluster it may not come back at all.

A copy is removed by the process that makes the page, and by no other: every start of the workflow, a dry run or a job
on a cluster too, looks for an old page, also while another process makes the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tessera.artifacts.files import atomic

_LONG_AGO = (1.0, 1.0)


def _kept(page: Path) -> Path:
    return page.with_name(f".{page.name}.old")


@contextmanager
def old_page_kept(page: str | Path) -> Iterator[None]:
    """Keep a copy of the page beside it until the block ends well."""
    page = Path(page)
    if page.is_file():
        _copy(page, _kept(page))
    yield
    _kept(page).unlink(missing_ok=True)


def bring_back(page: str | Path) -> None:
    """Where no attempt has ended well since a page was kept: the old one is there, and older than anything."""
    page = Path(page)
    with suppress(FileNotFoundError):  # of a page that is whole by now, the copy may go at any time
        kept = _kept(page).read_bytes()
        if not page.is_file():
            _copy(_kept(page), page)
        # by the open file: a new page keeps its time, whether it stands there already or takes the name meanwhile
        with page.open("rb") as shown:
            if shown.read() == kept:
                os.utime(shown.fileno(), _LONG_AGO)


def _copy(page: Path, to: Path) -> None:
    with atomic(to) as temporary:
        shutil.copyfile(page, temporary)
