"""Embed a catalogue."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.embedding.embed import embed
from tessera.embedding.task import Places, Task

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    inputs = Places(
        catalogue=snakemake.input.catalogue,
        captions=dict(zip(snakemake.params.captions, snakemake.input.get("captions", []), strict=True)),
        model=snakemake.input.get("language_model"),
        writer=snakemake.input.get("writer_language_model"),
        data=str(Path(snakemake.input.interactions).parent) if snakemake.input.get("interactions") else "",
        embedder=snakemake.input.get("embedder"),
        pictures=snakemake.input.get("pictures"),
    )
    task = Task.model_validate_json(snakemake.params.cfg)
    embed(task, inputs, Path(snakemake.output.table), state_folder(snakemake.output[0]), snakemake.params.code)
