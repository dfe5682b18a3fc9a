"""The claims of a config, tested on a dataset."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.claims import of_job, write

with stage(snakemake.log[0]):
    runs = list(snakemake.input.runs)
    table = of_job(runs, json.loads(snakemake.params.cfg))
    write(table, runs, {kind: snakemake.output[kind] for kind in ("parquet", "csv", "md")})
