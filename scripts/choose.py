"""Choose the best trial of a search."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.training.search import choose

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    choose(
        [Path(trial) for trial in snakemake.input.trials], Path(snakemake.output.best), Path(snakemake.output.search)
    )
