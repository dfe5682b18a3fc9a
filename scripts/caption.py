"""Write the captions of a catalogue, or put them together from the parts that several jobs made."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.language.captioning import Captioning, caption, join_parts

PARTS = snakemake.input.get("parts", [])
GPUS = 0 if PARTS else snakemake.resources.get("gpu", 0)

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, GPUS):
    task = Captioning.model_validate_json(snakemake.params.cfg)
    if PARTS:
        join_parts(task, [Path(path) for path in PARTS], Path(snakemake.output[0]))
    else:
        caption(
            task,
            Path(snakemake.input.catalogue),
            Path(snakemake.input.language_model) if snakemake.input.get("language_model") else None,
            Path(snakemake.output[0]),
            state_folder(snakemake.output[0]),
            snakemake.params.code,
            Path(snakemake.input.pictures) if snakemake.input.get("pictures") else None,
        )
