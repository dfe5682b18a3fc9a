"""Train one run."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.recommenders.train import launch
from tessera.settings.config import Run

with stage(snakemake.log[0]):
    launch(
        Run.model_validate_json(snakemake.params.cfg),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.input.table) if snakemake.input.get("table") else None,
        Path(snakemake.output.model),
        Path("state"),
        snakemake.params.code,
        Path(snakemake.log[0]),
        Path(snakemake.input.teacher) if snakemake.input.get("teacher") else None,
    )
