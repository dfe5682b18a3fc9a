"""The report page of an experiment."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.reporting.old_page import old_page_kept
from tessera.reporting.ranking_page import build
from tessera.settings.reporting import Report


def by_dataset(files: list[str], name) -> dict[str, dict[str, Path]]:
    """dataset -> name -> file, for files below results/<dataset>/<kind>/."""
    found: dict[str, dict[str, Path]] = {}
    for path in map(Path, files):
        found.setdefault(path.parts[1], {})[name(path)] = path
    return found


with stage(snakemake.log[0]), old_page_kept(snakemake.output[0]):
    cfg = json.loads(snakemake.params.cfg)
    runs = {dataset: cfg["runs"][dataset] for dataset in cfg["datasets"]}
    build(
        snakemake.output[0],
        Report.model_validate(cfg["report"]),
        runs,
        cfg["config"],
        tables=by_dataset(snakemake.input.diagnostics, lambda path: path.stem),
        captions=by_dataset(snakemake.input.captions, lambda path: path.stem),
        embedders=by_dataset(snakemake.input.embedders, lambda path: path.parent.name),
        codes=by_dataset(snakemake.input.codes, lambda path: path.parent.name),
        health=by_dataset(snakemake.input.health, lambda path: path.parent.name),
    )
