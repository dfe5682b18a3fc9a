"""Train one run."""

from pathlib import Path

from tessera.artifacts.files import read_json
from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.recommenders.inputs import run_inputs
from tessera.recommenders.train import launch
from tessera.settings.changes import with_values
from tessera.settings.runs import Run

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    run = Run.model_validate_json(snakemake.params.cfg)
    if snakemake.input.get("chosen"):
        run = with_values(run, read_json(snakemake.input.chosen)["values"])
    launch(
        run,
        Path(snakemake.input.interactions).parent,
        run_inputs(run, snakemake.input),
        Path(snakemake.output.model),
        state_folder(snakemake.output[0]),
        snakemake.params.code,
        Path(snakemake.log[0]),
        Path(snakemake.input.validated) if snakemake.input.get("validated") else None,
    )
