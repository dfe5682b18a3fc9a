"""Train one click-through model."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.ctr.train import launch
from tessera.settings.ctr import CTRRun

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    launch(
        CTRRun.model_validate_json(snakemake.params.cfg),
        Path(snakemake.input.samples).parent,
        Path(snakemake.input.codes) if snakemake.input.get("codes") else None,
        Path(snakemake.output.model),
        state_folder(snakemake.output[0]),
        snakemake.params.code,
        Path(snakemake.log[0]),
        Path(snakemake.input.content).parent if snakemake.input.get("content") else None,
    )
