"""Write what a model says of one part of a catalogue."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.language.captioning import Captioning, caption_part

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    caption_part(
        Captioning.model_validate_json(snakemake.params.cfg),
        int(snakemake.wildcards.part),
        Path(snakemake.input.catalogue),
        Path(snakemake.input.language_model) if snakemake.input.get("language_model") else None,
        Path(snakemake.output[0]),
        state_folder(snakemake.output[0]),
        snakemake.params.code,
        Path(snakemake.input.pictures) if snakemake.input.get("pictures") else None,
    )
