"""The `tessera` command: what there is, whether a config fits, what it would do, and finished runs in use."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tessera.artifacts.logs import duration
from tessera.artifacts.places import RESULTS
from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.plan.owner import check_owner
from tessera.plan.required import check_files, check_first_lines
from tessera.settings.base import ConfigError, did_you_mean
from tessera.settings.config import Config
from tessera.settings.config import load as load_config
from tessera.settings.files import check_files_of_config, experiment_name
from tessera.settings.kinds import FAMILIES, members

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Configs = Annotated[list[Path], typer.Argument(help="Config files; later ones add to earlier ones.")]


def _end(text: object) -> typer.Exit:
    typer.echo(f"ERROR: {text}", err=True)
    return typer.Exit(1)


def _merged(first: Any, second: Any) -> Any:
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    return {**first, **{key: _merged(first.get(key), value) for key, value in second.items()}}


def _read(paths: list[Path]) -> Config:
    """A checked config.

    Raises:
        ConfigError: all that is wrong with it, a line each.
    """
    check_files_of_config(paths)
    merged: Any = {}
    for path in paths:
        merged = _merged(merged, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return load_config(merged, str(paths[-1]), experiment_name(paths))


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
        check_owner(Jobs(plan).root, configs, str(configs[-1]))
        check_files(plan, str(configs[-1]))
        check_first_lines(plan, str(configs[-1]))
    except ConfigError as error:
        raise _end(error) from None
    runs = len(plan.click_runs) if config.task == "ctr" else len(plan.runs)
    typer.echo(f"{configs[-1]}: fits; {runs} runs on {', '.join(config.experiment.datasets)}")


# ---------------------------------------------------------------- what it would do


@dataclass(frozen=True)
class Past:
    """What jobs of a rule took before."""

    seconds: float
    """Median."""
    memory: float
    """Most, in MB."""


def past(results: Path) -> dict[str, Past]:
    """What the jobs of each rule took, by the benchmark files of every experiment (`benchmarks/` of its folder)."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for folder, file in sorted((one, file) for one in results.glob("*/benchmarks") for file in one.rglob("*.tsv")):
        lines = file.read_text(encoding="utf-8").splitlines()
        if len(lines) < 2:
            continue
        row = dict(zip(lines[0].split("\t"), lines[1].split("\t"), strict=False))
        rule = file.relative_to(folder).parts[0].removesuffix(".tsv")
        try:
            measured.setdefault(rule, []).append((float(row["s"]), float(row["max_rss"])))
        except (KeyError, ValueError):  # "-" where a job was too short to be measured
            continue
    return {
        rule: Past(statistics.median(s for s, _ in rows), max(memory for _, memory in rows))
        for rule, rows in measured.items()
    }


def job_counts(output: str) -> Iterator[tuple[str, int]]:
    """Rules and their numbers of jobs, of what Snakemake's dry run tells first."""
    _, _, stats = output.partition("Job stats:")
    for line in stats.splitlines()[1:]:
        row = re.fullmatch(r"(\w+)\s+(\d+)", line.strip())
        if row and row[1] == "total":
            return
        if row:
            yield row[1], int(row[2])


@app.command()
def plan(configs: Configs, cores: Annotated[int, typer.Option(help="Cores that the run would have.")] = 2) -> None:
    """Say which jobs a config would run here, and how long they took the last time; nothing is run."""
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", str(cores), "--configfile", *map(str, configs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _end((done.stderr or done.stdout).strip().removeprefix("ERROR: "))
    before, total, unknown, most = past(Path(RESULTS)), 0.0, 0, 0.0
    counts = dict(job_counts(done.stdout))
    if not counts:
        typer.echo("nothing to be done")
        return
    typer.echo(f"{'rule':<18}{'jobs':>6}{'each':>12}{'together':>12}{'memory':>10}")
    for rule, count in counts.items():
        known = before.get(rule)
        if known is None:
            unknown += count if rule != "all" else 0
            typer.echo(f"{rule:<18}{count:>6}{'not known':>12}" if rule != "all" else f"{rule:<18}{count:>6}")
            continue
        total, most = total + count * known.seconds, max(most, known.memory)
        each, together = duration(known.seconds), duration(count * known.seconds)
        typer.echo(f"{rule:<18}{count:>6}{each:>12}{together:>12}{known.memory:>7.0f} MB")
    typer.echo(f"about {duration(total / cores)} on {cores} cores, {most:.0f} MB a job at most")
    if unknown:
        typer.echo(f"(without {unknown} jobs of rules that never ran here)")


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
        recommended = tessera.load(run).recommend(items, k=k)
    except (ValueError, OSError) as error:
        raise _end(error) from None
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


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A table, results/EXPERIMENT/tables/DATASET.parquet.")],
    second: Annotated[Path, typer.Argument(help="The table of another experiment.")],
    metric: Annotated[str, typer.Option(help="What is compared.")] = "NDCG@10",
) -> None:
    """The systems of two finished experiments side by side."""
    from tessera.artifacts.tables import ArtifactError, read_table

    try:
        tables = [read_table(path, "metrics").to_pylist() for path in (first, second)]
    except (ArtifactError, OSError) as error:
        raise _end(error) from None
    means = [
        {(r["system"], r["recommender"]): r["mean"] for r in rows if r["metric"] == metric and not r["kind"]}
        for rows in tables
    ]
    if not any(means):
        known = {row["metric"] for rows in tables for row in rows}
        raise _end(f"no metric {metric!r}{did_you_mean(metric, known)}")
    typer.echo(f"{metric:<36}{first.parents[1].name:>14}{second.parents[1].name:>14}{'difference':>14}")
    for key in dict.fromkeys([*means[0], *means[1]]):
        shown = [f"{values[key]:>14.4f}" if key in values else f"{'':>14}" for values in means]
        both = f"{means[1][key] - means[0][key]:>+14.4f}" if all(key in values for values in means) else ""
        name = key[0] if key[0] == key[1] else "/".join(key)
        typer.echo(f"{name:<36}{shown[0]}{shown[1]}{both}".rstrip())


def main() -> None:
    """The command."""
    app()
