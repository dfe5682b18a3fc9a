"""Train an embedder."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.embedding.task import Places, Task
from tessera.embedding.tune import launch

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    inputs = Places(
        catalogue=snakemake.input.catalogue,
        captions=dict(zip(snakemake.params.captions, snakemake.input.get("captions", []), strict=True)),
        model=snakemake.input.get("language_model"),
        data=str(Path(snakemake.input.interactions).parent),
        embedder=snakemake.input.get("embedder"),
        pictures=snakemake.input.get("pictures"),
    )
    launch(
        Task.model_validate_json(snakemake.params.cfg),
        inputs,
        Path(snakemake.output.model),
        state_folder(snakemake.output[0]),
        snakemake.params.code,
        Path(snakemake.log[0]),
    )
