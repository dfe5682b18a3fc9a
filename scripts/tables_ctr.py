"""The table of a dataset's click-through models."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.ctr import collect
from tessera.reporting.formats import FORMATS, write
from tessera.settings.ctr import CTREvaluation

with stage(snakemake.log[0]):
    cfg = json.loads(snakemake.params.cfg)
    table = collect(
        cfg["dataset"],
        list(snakemake.input.runs),
        cfg["against"],
        CTREvaluation.model_validate(cfg["evaluation"]),
    )
    write(table, {kind: snakemake.output[kind] for kind in FORMATS})
