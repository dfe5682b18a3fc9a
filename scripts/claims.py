"""The claims of a config, tested on a dataset."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.claims import write
from tessera.settings.kinds import load

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    cfg = json.loads(snakemake.params.cfg)
    task = load(f"tessera.reporting.{cfg['task']}_claims")
    table = task.of_job(list(snakemake.input.runs), cfg)
    write(table, list(snakemake.input.cases), {kind: snakemake.output[kind] for kind in ("parquet", "csv", "md")})
