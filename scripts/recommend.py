"""Lists for all users with one finished run."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.recommenders.inputs import run_inputs
from tessera.serving.everyone import recommend_everyone
from tessera.settings.recommend import Recommend
from tessera.settings.runs import Run

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    settings = json.loads(snakemake.params.cfg)
    run = Run.model_validate(settings["run"])
    recommend_everyone(
        run,
        Recommend.model_validate(settings["recommend"]),
        Path(snakemake.input.model),
        Path(snakemake.input.interactions).parent,
        run_inputs(run, snakemake.input),
        Path(snakemake.input.stock) if snakemake.input.get("stock") else None,
        Path(snakemake.input.wanted) if snakemake.input.get("wanted") else None,
        Path(snakemake.output.table),
        Path(snakemake.output.csv),
    )
