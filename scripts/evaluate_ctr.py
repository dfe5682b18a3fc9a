"""Judge one click-through model on the test samples."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.ctr.evaluate import evaluate_model
from tessera.settings.ctr import CTREvaluation, CTRRun

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    cfg = json.loads(snakemake.params.cfg)
    reference = snakemake.input.get("reference")
    evaluate_model(
        CTRRun.model_validate(cfg["run"]),
        CTREvaluation.model_validate(cfg["evaluation"]),
        Path(snakemake.input.model),
        Path(snakemake.input.samples).parent,
        Path(snakemake.input.codes) if snakemake.input.get("codes") else None,
        Path(snakemake.output.predictions),
        Path(snakemake.output.metrics),
        (CTRRun.model_validate(cfg["reference"]), Path(reference)) if reference else None,
        Path(snakemake.input.content).parent if snakemake.input.get("content") else None,
    )
