"""What files of code were found to say, kept between runs: reading their syntax takes most of a second at every start.

An entry holds for a file's content, to the byte, and for the code that reads syntax, so nothing old is ever taken for
new; a cache that is damaged, of another version or cannot be written is done without.
"""

from __future__ import annotations

import atexit
import hashlib
import json
from contextlib import suppress
from pathlib import Path

from tessera.artifacts.files import atomic

Parse = tuple[str, tuple[str, ...]]
"""Hash of a file's meaning, and the modules that it imports."""


class Parses:
    """Parses of files by their path and content, in a JSON file that processes replace as a whole."""

    def __init__(self, path: Path, version: str) -> None:
        """
        Args:
            path: of the JSON file; it need not be there.
            version: of whatever makes parses; those of another version are forgotten.
        """
        self.path, self.version = path.resolve(), version
        self.entries = self._read()
        self.changed = False

    def _read(self) -> dict[str, tuple[str, Parse]]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["version"] != self.version:
                return {}
            entries = {
                path: (content, (meaning, tuple(imports)))
                for path, (content, meaning, imports) in stored["files"].items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}
        texts = {text for content, (meaning, imports) in entries.values() for text in (content, meaning, *imports)}
        return entries if all(isinstance(text, str) for text in texts) else {}

    def get(self, path: Path, data: bytes) -> Parse | None:
        """The parse of a file of this content, if it is known."""
        content, parse = self.entries.get(str(path), ("", None))
        return parse if content == _digest(data) else None

    def add(self, path: Path, data: bytes, parse: Parse) -> None:
        """Keep the parse of a file of this content; it is written when the process ends."""
        if not self.changed:
            self.changed = True
            atexit.register(self.write)
        self.entries[str(path)] = (_digest(data), parse)

    def write(self) -> None:
        """Replace the file; entries of files that are gone are left out."""
        files = {
            path: (content, *parse) for path, (content, parse) in sorted(self.entries.items()) if Path(path).is_file()
        }
        with suppress(OSError), atomic(self.path) as temporary:
            temporary.write_text(json.dumps({"version": self.version, "files": files}), encoding="utf-8")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
