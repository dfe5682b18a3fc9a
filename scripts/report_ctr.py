"""The report page of a click-through experiment."""

import json

from tessera.artifacts.logs import stage
from tessera.reporting.ctr_page import build
from tessera.reporting.old_page import old_page_kept
from tessera.settings.reporting import Report

with stage(snakemake.log[0]), old_page_kept(snakemake.output[0]):
    cfg = json.loads(snakemake.params.cfg)
    build(
        snakemake.output[0],
        Report.model_validate(cfg["report"]),
        {dataset: cfg["runs"][dataset] for dataset in cfg["datasets"]},
        cfg["config"],
        cfg["codes"],
    )
