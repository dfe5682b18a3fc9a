"""Make and pre-train a language model on the spot."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.language.pretraining import Pretraining, launch_pretraining

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    launch_pretraining(
        Pretraining.model_validate_json(snakemake.params.cfg),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.output[0]),
        state_folder(snakemake.output[0]),
        snakemake.params.code,
        Path(snakemake.log[0]),
        Path(snakemake.input.pictures) if snakemake.input.get("pictures") else None,
    )
