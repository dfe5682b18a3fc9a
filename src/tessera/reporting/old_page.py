"""The page that was there before: it stays until the new one is whole, and counts as out of date meanwhile.

Snakemake leaves the old page alone when the output is flagged `update`, and copies it back when the job fails; then the
copy is newer than what the page is made of, and would never be made again. On a cluster it may not come back at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONG_AGO = (1.0, 1.0)


def _kept(page: Path) -> Path:
    return page.with_name(f".{page.name}.old")


@contextmanager
def old_page_kept(page: str | Path) -> Iterator[None]:
    """Keep a copy of the page beside it until the block ends well."""
    page = Path(page)
    if page.is_file():
        shutil.copy(page, _kept(page))
    yield
    _kept(page).unlink(missing_ok=True)


def bring_back(page: str | Path) -> None:
    """Where the last attempt to make a page did not end well: the old one is there, and older than anything."""
    page = Path(page)
    if not _kept(page).is_file():
        return
    if page.is_file():
        _kept(page).unlink()
    else:
        _kept(page).replace(page)
    os.utime(page, _LONG_AGO)
