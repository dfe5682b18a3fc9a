"""The report page of an experiment."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.page import build
from tessera.settings.reporting import Report

with stage(snakemake.log[0]):
    cfg = json.loads(snakemake.params.cfg)
    runs = {dataset: cfg["runs"][dataset] for dataset in cfg["datasets"]}
    build(snakemake.output[0], Report.model_validate(cfg["report"]), runs, cfg["config"])
