"""Judge one trained run as more and more is missing."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.recommenders.corrupt import corrupt_run
from tessera.recommenders.inputs import run_inputs
from tessera.settings.evaluation import Evaluation
from tessera.settings.missing import Robustness
from tessera.settings.runs import Run

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    settings = json.loads(snakemake.params.cfg)
    run = Run.model_validate(settings["run"])
    corrupt_run(
        run,
        Robustness.model_validate(settings["robustness"]),
        Evaluation.model_validate(settings["evaluation"]),
        Path(snakemake.input.model),
        Path(snakemake.input.interactions).parent,
        run_inputs(run, snakemake.input).model_copy(update={"modalities": settings["modalities"]}),
        Path(snakemake.input.candidates) if snakemake.input.get("candidates") else None,
        Path(snakemake.output[0]),
        Path(snakemake.input.drawn) if snakemake.input.get("drawn") else None,
    )
