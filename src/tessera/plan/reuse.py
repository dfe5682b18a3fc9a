"""What another experiment has made already is taken over instead of made again: links to the same files.

A result is taken where everything agrees: the rule, its params (settings and the hash of the code), and all that it
reads, which was taken from the same folder, or is the same file. The record of how it was made is taken with it, so
that whatever is edited later is seen as if the job had run here. Links are safe because every writer replaces files,
and because a job's old outputs are removed before it runs: the other folder keeps its bytes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tessera.artifacts.places import PICTURES
from tessera.data.picture_stamp import look_again

TIMESTAMP = ".snakemake_timestamp"
"""In a folder that a rule made; its time is the folder's."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A job of this experiment, with all that decides its result."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Callable[[], frozenset[str]]
    """As the workflow records them; code is hashed for them, so that they are asked for late."""
    logs: tuple[str, ...] = ()
    """Log and benchmark: written on in place, so that they are copied."""
    temporary: bool = False
    """Whether its outputs are removed once they were read."""

    @property
    def there(self) -> bool:
        """Whether all outputs are."""
        return all(Path(output).exists() for output in self.outputs)


class Records(Protocol):
    """How outputs were made."""

    def read(self, output: str) -> Record | None:
        """The record of a finished output; None where there is none, or where it is being made."""

    def write(self, output: str, record: Record) -> None:
        """Record an output."""


class Reuse:
    """Results of sibling experiments for one experiment."""

    def __init__(self, root: str, siblings: Sequence[str | Path], records: Records) -> None:
        """
        Args:
            root: the experiment's folder.
            siblings: the folders of the others.
        """
        self.root, self.siblings, self.records = root, [str(sibling) for sibling in siblings], records
        self.taken: Counter[str] = Counter()
        """Folder -> results that were taken from it."""
        self._removed: dict[tuple[str, str], Record] = {}
        """Outputs that a sibling made in the same way, and removed once they were read, with their records."""

    def take(self, job: Job) -> bool:
        """Take the outputs of a job where one is missing and a sibling has all; whether it was so.

        Args:
            job: what it reads is there, or was looked for before.
        """
        if job.there:
            return False
        for sibling in self._agreeing(job.inputs, self.siblings):
            records = self._records(job, sibling)
            if records is None:
                continue
            if all(Path(self._there(output, sibling)).exists() for output in job.outputs):
                try:
                    self._take(job, sibling, records)
                except (FileNotFoundError, shutil.Error):  # a run beside this one has just removed it
                    continue
                return True
            # there is nothing to take, but what was made of it may be
            self._removed |= {(output, sibling): record for output, record in zip(job.outputs, records, strict=True)}
        return False

    def _agreeing(self, inputs: Iterable[str], siblings: Sequence[str]) -> list[str]:
        """Siblings whose files are those that a job reads here, or were."""
        own = [path for path in inputs if path.startswith(f"{self.root}/")]
        return [sibling for sibling in siblings if all(self._agrees(path, sibling) for path in own)]

    def _agrees(self, path: str, sibling: str) -> bool:
        if (path, sibling) in self._removed and not Path(path).exists():
            return True
        return same(path, self._there(path, sibling))

    def _there(self, path: str, sibling: str) -> str:
        return f"{sibling}{path.removeprefix(self.root)}" if path.startswith(f"{self.root}/") else path

    def _records(self, job: Job, sibling: str) -> list[Record] | None:
        """How a sibling made every output of a job, told of this folder; None where it did not, or not in this way."""
        moved_records = []
        for output in job.outputs:
            there = self._there(output, sibling)
            record = self.records.read(there) if job.temporary or Path(there).exists() else None
            if record is None:
                return None
            moved = _moved(record, sibling, self.root)
            if moved.get("rule") != job.rule or set(moved.get("input") or ()) != set(job.inputs):
                return None
            if set(moved.get("params") or ()) != job.params():
                return None
            moved_records.append(moved)
        return moved_records

    def _take(self, job: Job, sibling: str, records: list[Record]) -> None:
        # a file without its record would pass for up to date; a record without its file is nothing
        removed = [(path, self._removed[path, sibling]) for path in job.inputs if (path, sibling) in self._removed]
        for output, record in [*removed, *zip(job.outputs, records, strict=True)]:
            self.records.write(output, record)
        for output in job.outputs:
            _link(Path(self._there(output, sibling)), Path(output))
        for output in job.outputs:
            if output.endswith(f"/{PICTURES}"):  # it tells of pictures as they were when the sibling last looked
                look_again(Path(output))
        for path in job.logs:
            there = Path(self._there(path, sibling))
            if there.is_file() and not Path(path).exists():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(there, path)
        self.taken[sibling] += 1


def taken_over(taken: Mapping[str, int]) -> str:
    """What was taken, in a line."""
    parts = ", ".join(f"{count:,} from {folder}" for folder, count in sorted(taken.items()))
    count = sum(taken.values())
    return f"{count:,} result{'s' if count > 1 else ''} of other experiments agree and are taken over: {parts}"


def same(path: str, other: str) -> bool:
    """Whether two paths are one file, or a copy that kept its time; of folders that rules made, their times tell."""
    inside = TIMESTAMP if Path(path).is_dir() else ""
    try:
        one, two = Path(path, inside).stat(), Path(other, inside).stat()
    except OSError:
        return False
    return os.path.samestat(one, two) or (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns)


def _moved(value: Any, sibling: str, root: str) -> Any:
    """A record with the paths of one folder put for those of another."""
    if isinstance(value, str):
        return re.sub(rf"(?<![\w./-]){re.escape(sibling)}/", f"{root}/", value)
    if isinstance(value, dict):
        return {_moved(key, sibling, root): _moved(part, sibling, root) for key, part in value.items()}
    return [_moved(part, sibling, root) for part in value] if isinstance(value, list) else value


def _link(source: Path, target: Path) -> None:
    """Put links to a file, or to all of a folder, in the place of what is there; whole or not at all."""
    temporary = target.with_name(f".{target.name}.taken")
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in (temporary, target):
        _remove(old)
    if source.is_dir():
        shutil.copytree(source, temporary, copy_function=_link_file, symlinks=True)
    else:
        _link_file(source, temporary)
    temporary.rename(target)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):  # another disk, or one that knows no links
        shutil.copy2(source, target, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
