"""Judge the true click probabilities of a lifelong demo world."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.ctr.oracle import judge_oracle
from tessera.settings.ctr import CTREvaluation

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    judge_oracle(
        CTREvaluation.model_validate_json(snakemake.params.cfg),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.input.truth),
        Path(snakemake.input.samples).parent,
        Path(snakemake.output.predictions),
        Path(snakemake.output.metrics),
    )
