"""What `./run` does once the environment is there: look at the config, free a lock that nobody holds, call Snakemake.

    python tools/run.py [--verbose] [any option of Snakemake]

Of Snakemake's text one line of progress is shown (the logger plugin `tessera`), unless `--verbose` asks for all of it.

Configs and targets may stand in any order: `--configfile my.yaml results/my/tables/shop.md` reads one config and makes
one table, where Snakemake itself would take the table for a second config.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import unlock
import yaml

from tessera.artifacts.failures import ended_by, framed
from tessera.artifacts.places import REPORT, experiment_folder
from tessera.settings.base import ConfigError
from tessera.settings.files import check_files_of_config, name_of_experiment

CONFIG = Path("config/config.yaml")
_CORES = re.compile(r"--(cores|jobs|profile|workflow-profile|executor)(=.*)?|-[cje].*")
_TELLS = {"-h", "--help", "-v", "--version", "--lint", "--unlock", "--list", "-l"}
_OWN_TEXT = re.compile(
    r"--(logger|quiet|debug-dag|dag|rulegraph|filegraph|d3dag|summary|detailed-summary|report|list\S*|cleanup\S*|"
    r"containerize|archive|export-cwl|print-compilation|generate-unit-tests|touch|delete\S*)(=.*)?|-[qDSt].*"
)
"""Options with which Snakemake is asked for something else than a run, or its text is chosen."""
_FILES, _PAIRS = ("--configfile", "--configfiles"), ("--config", "-C")
_FLAGS = re.compile(r"--(verbose|keep-going|forceall|force|rerun-incomplete|dry-?run)|-[npqFk]+")
"""Options behind which no value of theirs stands."""
_NAME = re.compile(r"[A-Za-z_]\w*")
_DRY = re.compile(r"--dry-?run|-[npqFk]*n[npqFk]*")


def sort(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments as Snakemake takes them: targets first, and the config files among them."""
    targets: list[str] = []
    others: list[str] = []
    configs: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, _, value = argument.partition("=")
        if name in _FILES:
            values = [value] if value else []
            while waiting and not waiting[0].startswith("-"):
                values.append(waiting.pop(0))
            if not values:
                others.append(argument)  # Snakemake says what is missing; a variable of the shell may be empty
            files = [one for number, one in enumerate(values) if number == 0 or _is_config(one)]
            targets += [one for one in values if one not in files]
            configs += files
        elif name in _PAIRS:
            pairs = []
            while waiting and not waiting[0].startswith("-"):
                (pairs if "=" in waiting[0] else targets).append(waiting.pop(0))
            others += [argument, *pairs]
        else:
            others.append(argument)
    return [*targets, *others, *(["--configfile", *configs] if configs else [])], configs


def _is_config(argument: str) -> bool:
    """Whether what follows a config file is another one, and no target."""
    return Path(argument).suffix in (".yaml", ".yml", ".json") and Path(argument).parts[:1] != ("results",)


def misplaced(arguments: Sequence[str]) -> str | None:
    """A config where a file to be made is expected, or a key that is no section: Snakemake would speak of rules and
    identifiers."""
    option, values = "", 0
    for argument in arguments:
        if argument.startswith("-"):
            option, values = argument, 0
            continue
        values += 1
        key, equals, value = argument.partition("=")
        if option in _PAIRS and equals and not _NAME.fullmatch(key):
            return f"--config {key}: {_as_section(key, value)}"
        takes_one = option and "=" not in option and not _FLAGS.fullmatch(option)
        taken = option.partition("=")[0] in (*_PAIRS, *_FILES) or (takes_one and values == 1)
        if not taken and _is_config(argument) and Path(argument).is_file():
            return f"{argument} is a config, and no file to be made; say ./run --configfile {shlex.quote(argument)}"
    return None


def _as_section(key: str, value: str) -> str:
    """How a key within a section is given on the command line."""
    section, *inner = key.split(".")
    if not inner or not all(map(_NAME.fullmatch, [section, *inner])):
        return f"expected a section of the config and its keys as YAML, --config KEY=VALUE (got {key}={value})"
    nested = f"{inner.pop()}: {value}"
    while inner:
        nested = f"{inner.pop()}: {{{nested}}}"
    return f"a section takes its keys as YAML: --config {section}={shlex.quote(f'{{{nested}}}')}"


def environment(given: Sequence[str] = ()) -> dict[str, str]:
    """With the library of this folder, where Snakemake finds the logger plugin, and the command as it was given."""
    source = Path(__file__).resolve().parents[1] / "src"
    kept = [str(source)] * source.is_dir() + [os.environ[name] for name in ("PYTHONPATH",) if os.environ.get(name)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(kept), "TESSERA_COMMAND": shlex.join(["./run", *given])}


def report(arguments: list[str], configs: list[str]) -> Path:
    """The page of the experiment that Snakemake was called for."""
    pairs = [argument.partition("=") for argument in arguments if argument.startswith("experiment=")]
    overrides = {key: yaml.safe_load(value) for key, _, value in pairs}
    files = [Path(config) for config in configs or [CONFIG] if Path(config).is_file()]
    return Path(experiment_folder(name_of_experiment(files, overrides)), REPORT)


def directory(arguments: list[str]) -> Path:
    """Where Snakemake works: the folder that `--directory` names, or this one."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--directory", "-d", default=".")
    for flag in "npqFk":  # which may stand together with it: `-nd there`
        parser.add_argument(f"-{flag}", action="store_true")
    try:
        return Path(parser.parse_known_args(arguments)[0].directory)
    except (argparse.ArgumentError, SystemExit):  # Snakemake says what is wrong
        return Path()


def main(given: list[str]) -> int:
    """Run Snakemake; its exit code."""
    if problem := misplaced(given):
        print(f"ERROR: {problem}", file=sys.stderr)
        return 1
    arguments, configs = sort(given)
    try:
        check_files_of_config(configs)
    except ConfigError as error:
        print(framed(f"ERROR: this config cannot be run:\n{error}"), file=sys.stderr)
        return 1
    folder = directory(arguments)
    if held := unlock.main(folder):
        return held
    if not any(map(_CORES.fullmatch, arguments)):
        arguments = ["--cores", "all", *arguments]
    asked = _TELLS.intersection(arguments) or any(map(_DRY.fullmatch, arguments))
    verbose = "--verbose" in arguments
    arguments = [argument for argument in arguments if argument != "--verbose"]
    line = not (verbose or asked or any(map(_OWN_TEXT.fullmatch, arguments)))
    if line:
        arguments = ["--logger=tessera", *arguments]
    # as a module: the program `snakemake` of an environment knows the folder that it was made in, by its path
    process = subprocess.Popen([sys.executable, "-m", "snakemake", *arguments], env=environment(given))
    for number in (signal.SIGTERM, signal.SIGHUP):  # of a terminal that was closed, Snakemake knows nothing
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to Snakemake, too
    code = process.wait()
    if code < 0 and -code != signal.SIGINT:  # it could not say so itself
        ended = ended_by(signal.Signals(-code).name)
        print(f"\nERROR: Snakemake did not end by itself ({ended}); the same command goes on", file=sys.stderr)
    if code == 0 and not line and not asked and (page := folder / report(arguments, configs)).is_file():
        print(f"The report: {page.resolve()}")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
