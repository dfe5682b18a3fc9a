"""Train one trial of a search, and keep what validation says of it."""

from pathlib import Path

from tessera.artifacts.files import read_json
from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.recommenders.inputs import run_inputs
from tessera.recommenders.trial import try_run
from tessera.settings.changes import with_values
from tessera.settings.runs import Run

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    run = Run.model_validate_json(snakemake.params.cfg)
    if snakemake.input.get("asked"):
        run = with_values(run, read_json(snakemake.input.asked)["values"][snakemake.wildcards.trial])
    try_run(
        run,
        Path(snakemake.input.interactions).parent,
        run_inputs(run, snakemake.input),
        Path(snakemake.output.trial),
        state_folder(snakemake.output[0]),
        snakemake.params.code,
        Path(snakemake.log[0]),
    )
