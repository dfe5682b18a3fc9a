"""Judge one run on the test users."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.recommenders.evaluate import evaluate_run
from tessera.settings.config import Run
from tessera.settings.evaluation import Evaluation

with stage(snakemake.log[0]):
    settings = json.loads(snakemake.params.cfg)
    evaluate_run(
        Run.model_validate(settings["run"]),
        Evaluation.model_validate(settings["evaluation"]),
        Path(snakemake.input.model),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.input.table) if snakemake.input.get("table") else None,
        Path(snakemake.input.candidates) if snakemake.input.get("candidates") else None,
        Path(snakemake.output.evaluation),
        Path(snakemake.output.metrics),
    )
