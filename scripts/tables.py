"""Metric tables of a dataset from all of its runs."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.formats import FORMATS, write
from tessera.settings.kinds import load

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    cfg = json.loads(snakemake.params.cfg)
    task = load(f"tessera.reporting.{cfg['task']}")
    shifts = {"shifts": snakemake.input.shifts} if snakemake.input.get("shifts") else {}
    write(task.of_job(list(snakemake.input.runs), cfg, **shifts), {kind: snakemake.output[kind] for kind in FORMATS})
