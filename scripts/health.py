"""What semantic IDs are like: use of codes, collisions, what they keep of the tables."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.quantization.health import describe_health

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    describe_health(
        Path(snakemake.input.codes),
        dict(zip(snakemake.params.tables, map(Path, snakemake.input.get("tables", [])), strict=True)),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.output[0]),
    )
