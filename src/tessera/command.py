"""The `tessera` command: what there is, whether a config fits, what it would do, and finished runs in use."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tessera.plan.first_lines import check_first_lines
from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.plan.owner import check_owner
from tessera.plan.required import check_files
from tessera.project import make_project
from tessera.settings.base import ConfigError, did_you_mean
from tessera.settings.config import Config
from tessera.settings.config import load as load_config
from tessera.settings.files import check_files_of_config, experiment_name, merged
from tessera.settings.kinds import FAMILIES, members

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Configs = Annotated[list[Path], typer.Argument(help="Config files; later ones add to earlier ones.")]


def _end(text: object) -> typer.Exit:
    typer.echo(f"ERROR: {text}", err=True)
    return typer.Exit(1)


def _read(paths: list[Path]) -> Config:
    """A checked config.

    Raises:
        ConfigError: all that is wrong with it, a line each.
    """
    check_files_of_config(paths)
    config: Any = {}
    for path in paths:
        config = merged(config, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return load_config(config, _named(paths), experiment_name(paths))


def _named(configs: list[Path]) -> str:
    """What messages call configs that are read together."""
    return ", ".join(map(str, configs))


@app.command()
def systems(family: Annotated[str | None, typer.Argument(help="Only one family, e.g. backbones.")] = None) -> None:
    """List what a config can name: recommenders, backbones, recipes, quantisers, losses, sources ..."""
    if family is not None and family not in FAMILIES:
        raise _end(f"unknown family {family!r}{did_you_mean(family, FAMILIES)}")
    for name in [family] if family else FAMILIES:
        typer.echo(f"{name} (key `{FAMILIES[name].key}`)")
        for kind in members(name):
            tag = kind.__module__.rpartition(".")[2]
            typer.echo(f"  {tag:<20} {(kind.__doc__ or '').strip().splitlines()[0]}")


@app.command()
def check(configs: Configs) -> None:
    """Say whether a config fits, and its files are there; nothing is run."""
    try:
        config = _read(configs)
        plan = Plan(config)
        check_owner(Jobs(plan).root, configs, _named(configs))
        check_files(plan, _named(configs))
        check_first_lines(plan, _named(configs))
    except ConfigError as error:
        raise _end(error) from None
    runs = len(plan.click_runs) if config.task == "ctr" else len(plan.runs)
    typer.echo(f"{_named(configs)}: fits; {runs} run{'s' * (runs != 1)} on {', '.join(config.experiment.datasets)}")


# ---------------------------------------------------------------- what it would do


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")]) -> None:
    """Copy the workflow into a folder of your own: Snakefile, rules, scripts, profiles, configs, ./run."""
    try:
        make_project(folder)
    except OSError as error:
        raise _end(error) from None
    typer.echo(f"{folder}: the workflow; next: cd {shlex.quote(str(folder))} && ./run --configfile config/tiny.yaml")


@app.command()
def plan(
    configs: Configs, cores: Annotated[int, typer.Option(min=1, help="Cores that the run would have.")] = 2
) -> None:
    """Say which jobs a config would run here, and the time, memory and disk that they will take; nothing is run."""
    if not Path("Snakefile").is_file():
        raise _end(f"no Snakefile in {Path.cwd()}; go to the folder of the workflow, or make one: tessera init FOLDER")
    try:
        check_files_of_config([str(config) for config in configs])
    except ConfigError as error:
        raise _end(error) from None
    command = [sys.executable, "-m", "snakemake", "-n", "--logger=tessera", "--cores", str(cores)]
    done = subprocess.run([*command, "--configfile", *map(str, configs)], check=False)
    if done.returncode:
        raise typer.Exit(1)


# ---------------------------------------------------------------- finished runs


@app.command()
def recommend(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, results/EXPERIMENT/DATASET/runs/...")],
    items: Annotated[list[str], typer.Argument(help="The history: ids of items, oldest first.")],
    k: Annotated[int, typer.Option("-k", help="Length of the list.")] = 10,
) -> None:
    """The next items after a history, by a finished run."""
    import tessera

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            recommended = tessera.load(run).recommend(items, k=k)
    except (ValueError, OSError) as error:
        raise _end(error) from None
    for text in dict.fromkeys(str(one.message) for one in said):
        typer.echo(f"WARNING: {text}", err=True)
    typer.echo(recommended.to_string(index=False))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, results/EXPERIMENT/DATASET/runs/...")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    index: Annotated[str, typer.Option(help="auto, flat, hnsw or ivf_pq.")] = "auto",
    onnx: Annotated[bool, typer.Option(help="Write the user tower as ONNX.")] = True,
    licence: Annotated[str | None, typer.Option(help="Of the weights, e.g. apache-2.0.")] = None,
    push: Annotated[str | None, typer.Option(help="OWNER/NAME on the Hugging Face Hub; else nothing is sent.")] = None,
) -> None:
    """Write a finished run into a folder to hand on, with an index and a model card."""
    import tessera

    try:
        made = tessera.load(run).export(folder, index=index, onnx=onnx, licence=licence, push=push)
    except (ValueError, OSError) as error:
        raise _end(error) from None
    typer.echo(made)


_RULES = ("candidates", "test_users", "test_users_seed", "mask_seen", "repeat_targets", "ties", "cold_targets")
"""Keys of `evaluation` that the numbers of a table depend on."""


def _unlike(tables: Sequence[Sequence[Mapping[str, Any]]], rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """In what two tables differ that should be alike: the dataset, the rules of the judge, how many users it asked."""
    datasets = [", ".join(sorted({row["dataset"] for row in rows})) for rows in tables]
    if datasets[0] != datasets[1]:
        yield f"of unlike datasets: {' and '.join(map(repr, datasets))}"
    for key in _RULES:
        values = [json.dumps(rule[key]) for rule in rules if key in rule]
        if len(set(values)) > 1:
            yield f"judged by unlike rules: evaluation.{key}: {' and '.join(values)}"
    users = [max((row.get("users") or 0 for row in rows if not row["kind"]), default=0) for rows in tables]
    if all(users) and users[0] != users[1]:
        yield f"judged on unlike users: {users[0]:,} and {users[1]:,}"


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A table, results/EXPERIMENT/tables/DATASET.parquet.")],
    second: Annotated[Path, typer.Argument(help="The table of another experiment.")],
    metric: Annotated[str, typer.Option(help="What is compared.")] = "NDCG@10",
) -> None:
    """The systems of two finished experiments side by side."""
    from tessera.artifacts.tables import ArtifactError, describe, read_table
    from tessera.evaluation.metrics import protocol_suffix

    try:
        tables = [read_table(path, "metrics").to_pylist() for path in (first, second)]
    except (ArtifactError, OSError) as error:
        raise _end(error) from None
    # of click models a row is a model of some kind
    means = [
        {
            (r.get("system") or r["model"], r.get("recommender") or r["model_kind"]): r["mean"]
            for r in rows
            if r["metric"] == metric and not r["kind"]
        }
        for rows in tables
    ]
    if not any(means):
        known = {row["metric"] for rows in tables for row in rows}
        raise _end(f"no metric {metric!r}{did_you_mean(metric, known)}")
    protocols = [", ".join(sorted({row["protocol"] for row in rows if "protocol" in row})) for rows in tables]
    if protocols[0] != protocols[1]:
        raise _end(f"metrics of unlike protocols cannot stand side by side: {' and '.join(map(repr, protocols))}")
    rules = [describe(path).get("settings", {}).get("evaluation", {}) for path in (first, second)]
    for difference in _unlike(tables, rules):
        typer.echo(f"WARNING: {difference}", err=True)
    names = [path.resolve().parents[1].name for path in (first, second)]
    title = metric + protocol_suffix(metric, protocols[0] or "full")
    typer.echo(f"{title:<36}{names[0]:>14}{names[1]:>14}{'difference':>14}")
    for key in dict.fromkeys([*means[0], *means[1]]):
        shown = [f"{values[key]:>14.4f}" if key in values else f"{'':>14}" for values in means]
        both = f"{means[1][key] - means[0][key]:>+14.4f}" if all(key in values for values in means) else ""
        name = key[0] if key[0] == key[1] else "/".join(key)
        typer.echo(f"{name:<36}{shown[0]}{shown[1]}{both}".rstrip())


def main() -> None:
    """The command."""
    app()
