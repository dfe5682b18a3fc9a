"""Metric tables of a dataset from all of its runs."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.formats import FORMATS, write
from tessera.reporting.ranking import collect
from tessera.settings.evaluation import Evaluation, Significance

with stage(snakemake.log[0]):
    cfg = json.loads(snakemake.params.cfg)
    table = collect(
        cfg["dataset"],
        list(snakemake.input.runs),
        cfg["order"],
        Evaluation.model_validate(cfg["evaluation"]),
        Significance.model_validate(cfg["significance"]),
    )
    write(table, {kind: snakemake.output[kind] for kind in FORMATS})
