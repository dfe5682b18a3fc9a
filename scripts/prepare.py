"""Raw log -> dataset: cleaned, numbered, split."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    from tessera.data.prepare import prepare

    prepare(
        Path(snakemake.input[0]).parent,
        Path(snakemake.output[0]).parent,
        json.loads(snakemake.params.cfg),
        snakemake.params.judged,
    )
