"""After the folder of the repository was moved or copied: let its environment know where it is.

    .venv/bin/python tools/moved.py      # `./run` and `./test` do this by themselves

The programs of a virtual environment, and the link to the library, hold the path of the folder that they were made in.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_VENV = re.compile(r"^command = .* -m venv (?:--\S+ )*(.+)$", re.MULTILINE)


def _replace(path: Path, old: str, new: str) -> bool:
    """Put one path for another in a text file, by a file of its own: links to the old one keep what they have."""
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return False
    changed = text.replace(old, new)
    if changed == text:
        return False
    shebang, line, rest = changed.partition("\n")
    python = shebang.removeprefix("#!")
    if shebang.startswith("#!") and new in shebang and (" " in python or len(shebang) > 127):
        changed = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''{line}{rest}"
    temporary = path.with_name(f".{path.name}.moved")
    temporary.write_text(changed, encoding="utf-8")
    temporary.chmod(path.stat().st_mode)
    temporary.replace(path)
    return True


def main(root: Path) -> int:
    """Mend the environment of a repository; does nothing where it is in its place, or a link to another."""
    venv = root / ".venv"
    cfg = venv / "pyvenv.cfg"
    made = _VENV.search(cfg.read_text(encoding="utf-8"))
    if venv.is_symlink() or made is None:
        return 0
    old = Path(made[1])
    if old == venv or (old.exists() and old.samefile(venv)):
        return 0
    print(f"This folder was {old.parent} before: mending its environment.", file=sys.stderr)
    packages = next((venv / "lib").glob("python*/site-packages"))
    links = [*packages.glob("*.pth"), *packages.glob("__editable__*.py"), *packages.glob("tessera*.dist-info/*.json")]
    for path in [*(path for path in (venv / "bin").iterdir() if not path.is_symlink()), *links]:
        # a path that only begins like the old one is another
        if not _replace(path, f"{old}/", f"{venv}/"):
            _replace(path, f"{old.parent}/", f"{root}/")
    for path in [*(venv / "bin").glob("activate*"), *(venv / "bin").glob("Activate*"), cfg]:
        _replace(path, str(old), str(venv))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1]))
