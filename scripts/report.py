"""The report page of an experiment."""

import json
import os
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.reporting.old_page import old_page_kept
from tessera.reporting.page import made_now
from tessera.reporting.plots import unchecked
from tessera.settings.kinds import load
from tessera.settings.reporting import Report

# named input -> what the page calls it, and what a file of it is named by
SHOWN = {
    "diagnostics": ("tables", lambda path: path.stem),
    "captions": ("captions", lambda path: path.stem),
    "embedders": ("embedders", lambda path: path.parent.name),
    "codes": ("codes", lambda path: path.parent.name),
    "health": ("health", lambda path: path.parent.name),
    "atlas": ("atlas", lambda path: path.stem),
}


def by_dataset(files: list[str], name) -> dict[str, dict[str, Path]]:
    """dataset -> name -> file, for files below results/<experiment>/<dataset>/<kind>/."""
    named: dict[str, dict[str, Path]] = {}
    for path in map(Path, files):
        named.setdefault(path.parts[2], {})[name(path)] = path
    return named


with stage(snakemake.log[0], attempt=snakemake.resources.attempt), old_page_kept(snakemake.output[0]), unchecked():
    cfg = json.loads(snakemake.params.cfg)
    task = load(f"tessera.reporting.{cfg['task']}_page")
    runs = {dataset: cfg["runs"][dataset] for dataset in cfg["datasets"]}
    given = dict(snakemake.input.items())
    files = {argument: by_dataset(given[key], name) for key, (argument, name) in SHOWN.items() if key in given}
    root = Path(snakemake.output[0]).parents[1]
    made = made_now(os.environ.get("TESSERA_COMMAND", ""))
    report = Report.model_validate(cfg["report"])
    task.build(snakemake.output[0], report, runs, cfg["config"], root, made=made, **files)
