"""The table of a dataset's click-through models."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.reporting.ctr import collect, write
from tessera.settings.ctr import CTREvaluation

with stage(snakemake.log[0]):
    cfg = json.loads(snakemake.params.cfg)
    table = collect(
        cfg["dataset"],
        [Path(path) for path in snakemake.input.runs],
        cfg["against"],
        CTREvaluation.model_validate(cfg["evaluation"]),
    )
    write(table, {kind: Path(snakemake.output[kind]) for kind in ("parquet", "csv", "md", "tex")})
