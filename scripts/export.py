"""One finished run in a folder to hand on."""

import json
from pathlib import Path

from tessera.artifacts.files import read_json
from tessera.artifacts.logs import stage
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.inputs import run_inputs
from tessera.serving.catalogue import read_catalogue
from tessera.serving.export import export_run
from tessera.serving.folder import RunFiles
from tessera.settings.changes import as_trained
from tessera.settings.export import Export
from tessera.settings.runs import Run

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    settings = json.loads(snakemake.params.cfg)
    run = as_trained(Run.model_validate(settings["run"]), read_json(Path(snakemake.input.description))["run"])
    model, items = Path(snakemake.input.model), Path(snakemake.input.catalogue)
    files = RunFiles(model.parent, run, items, run_inputs(run, snakemake.input))
    catalogue = read_catalogue(items)
    scorer = load_scorer(model, run, catalogue.popularity, files.inputs)
    export = Export.model_validate(settings["export"])
    export_run(files, scorer, catalogue, export, snakemake.output.folder, Path(snakemake.input.metrics))
