"""What a source is: a module with two readers and a check, found by the name that the config says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from tessera.data.files import find, parts
from tessera.data.log import Item, RawLog
from tessera.settings.kinds import implementation
from tessera.settings.sources.base import FileSource


class Source(Protocol):
    """The functions that each module of this package offers."""

    def read_interactions(self, settings: Any, log: RawLog) -> None:
        """Hand every row of the log over, in its order."""
        ...

    def check(self, settings: Any) -> None:
        """Refuse files whose first lines are not what the settings say; an own source may do without."""
        ...

    def files(self, settings: Any) -> list[Path]:
        """The files that are read of the folder `path`; a source whose `path` is one file does without."""
        ...

    def check_items(self, settings: Any) -> None:
        """Refuse files of items whose first lines are not what the settings say; a source may do without."""
        ...

    def read_items(self, settings: Any, log: RawLog) -> Iterator[Item]:
        """Whatever the source tells of items; ids may repeat (the first wins) and may be unknown to the log."""
        ...


def source(settings: FileSource) -> Source:
    """The reader of a source, imported when it is needed."""
    return cast(Source, implementation(settings))


def files_of(settings: FileSource) -> list[Path]:
    """The local files of the log, of a folder those that are read.

    A folder is as new as the last file that was put into it or taken away: it says nothing of a file that was written
    anew in its place, and too much of one that nobody reads.

    Raises:
        FileNotFoundError, DataFileError: they are not there.
    """
    reader = source(settings)
    return reader.files(settings) if hasattr(reader, "files") else parts(find(settings.path, settings.sha256))
