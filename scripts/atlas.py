"""A map of the items of a table."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.evaluation.atlas import make_atlas

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    make_atlas(
        Path(snakemake.input.table),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.output[0]),
        snakemake.params.method,
        list(map(Path, snakemake.input.get("codes", []))),
    )
