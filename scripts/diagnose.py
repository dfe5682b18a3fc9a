"""What the vectors of an item table are like."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.evaluation.representations import diagnose

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    latents = snakemake.input.get("latents")
    diagnose(
        Path(snakemake.input.table),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.output[0]),
        Path(latents) if latents else None,
    )
