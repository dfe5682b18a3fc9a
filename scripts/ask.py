"""Ask a sampler that learns for the trials of a round."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.settings.search import Asking
from tessera.training.ask import ask_round

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    ask_round(
        Asking.model_validate_json(snakemake.params.cfg),
        [Path(trial) for trial in snakemake.input.trials],
        Path(snakemake.output.asked),
    )
