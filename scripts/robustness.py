"""What every system of a dataset comes to at the missing rates."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.formats import FORMATS, write
from tessera.reporting.robustness import of_job

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    cfg = json.loads(snakemake.params.cfg)
    table = of_job(list(snakemake.input.runs), list(snakemake.input.corrupted), cfg)
    write(table, {kind: snakemake.output[kind] for kind in FORMATS})
