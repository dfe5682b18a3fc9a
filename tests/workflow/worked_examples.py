"""The code and the configs that pages of the documentation show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(language: str, page: str = "architecture.md") -> list[str]:
    """What stands in the code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def files(page: str = "architecture.md") -> dict[str, str]:
    """The files that a page shows, by their place: the first line of each block of Python tells it."""
    found = {}
    for block in blocks("python", page):
        place, _, text = block.partition("\n")
        found[place.removeprefix("# ").partition(":")[0]] = text
    return found


def write_files(folder: Path) -> None:
    """Put the files below a folder."""
    for place, text in files().items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def configs() -> list[Any]:
    """The parts of configs that the page shows."""
    return [yaml.safe_load(block) for block in blocks("yaml")]
