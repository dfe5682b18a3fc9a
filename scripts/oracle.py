"""Judge the demo world's true probabilities: the best reachable metrics."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.evaluation.oracle import judge_oracle
from tessera.settings.evaluation import Evaluation

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    judge_oracle(
        Evaluation.model_validate(json.loads(snakemake.params.cfg)["evaluation"]),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.input.truth),
        Path(snakemake.input.candidates) if snakemake.input.get("candidates") else None,
        Path(snakemake.output.evaluation),
        Path(snakemake.output.metrics),
        Path(snakemake.input.drawn) if snakemake.input.get("drawn") else None,
    )
