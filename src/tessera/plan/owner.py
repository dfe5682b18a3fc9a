"""Whose an experiment's folder is: `results/<experiment>/experiment.json` names the config files that made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.places import RESULTS
from tessera.settings.base import ConfigError

OWNER = "experiment.json"


def check_owner(root: str | Path, configs: Sequence[str | Path], where: str) -> None:
    """Refuse a folder that other config files made, and that are still there.

    Args:
        root: the experiment's folder, below the working directory.
        configs: the config files of this run; what is no file (`<(command)`) owns nothing.
        where: what the message calls the config.
    Raises:
        ConfigError: one message with both, and what to do.
    """
    owner, own = Path(root, OWNER), _named(configs)
    if not owner.is_file() or not own:
        return
    makers = [str(name) for name in read_json(owner).get("configs", [])]
    # as the files are, not as they are spelled: a link is what it leads to, and what is gone owns nothing
    if not makers or not all(Path(name).is_file() for name in makers) or _same(makers, own):
        return
    name = Path(root).name
    raise ConfigError(
        f"{where}: experiment.name: '{root}' holds what {' with '.join(makers)} made, and this run of "
        f"{' with '.join(own)} would overwrite it. Give this one a name of its own (`experiment: {{name: {name}-2}}`, "
        f"or on the command line --config experiment='{{name: {name}-2}}'), or delete {root} and state/{name}"
    )


def write_owner(root: str | Path, configs: Sequence[str | Path]) -> None:
    """Say whose the folder is; nothing is written where it says so already."""
    named = {"configs": _named(configs)}
    owner = Path(root, OWNER)
    if not owner.is_file() or read_json(owner) != named:
        write_json(owner, named)


def others(root: str | Path) -> list[Path]:
    """The folders of other experiments beside one."""
    beside = Path(RESULTS)
    folders = sorted(beside.iterdir()) if beside.is_dir() else []
    return [folder for folder in folders if folder != Path(root) and (folder / OWNER).is_file()]


def _named(configs: Sequence[str | Path]) -> list[str]:
    """Config files from the working directory where they are below it: it may be moved, or copied."""
    here = Path.cwd().resolve()
    files = [Path(path).resolve() for path in configs if Path(path).is_file()]
    return [str(file.relative_to(here) if file.is_relative_to(here) else file) for file in files]


def _same(one: Sequence[str], other: Sequence[str]) -> bool:
    return [Path(path).resolve() for path in one] == [Path(path).resolve() for path in other]
