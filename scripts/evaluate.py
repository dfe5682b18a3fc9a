"""Judge one run on the test users."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import run_inputs
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    settings = json.loads(snakemake.params.cfg)
    run = Run.model_validate(settings["run"])
    evaluate_run(
        run,
        Evaluation.model_validate(settings["evaluation"]),
        Path(snakemake.input.model),
        Path(snakemake.input.interactions).parent,
        run_inputs(run, snakemake.input),
        Path(snakemake.input.candidates) if snakemake.input.get("candidates") else None,
        Path(snakemake.output.evaluation),
        Path(snakemake.output.metrics),
        Path(snakemake.input.drawn) if snakemake.input.get("drawn") else None,
    )
