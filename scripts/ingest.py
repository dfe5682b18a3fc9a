"""Raw files of a source -> raw log, raw items, rejected rows."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    from tessera.data.ingest import ingest

    ingest(json.loads(snakemake.params.cfg), Path(snakemake.output[0]).parent)
