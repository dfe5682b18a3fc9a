"""Draw the test users that every system is judged on."""

import json
from pathlib import Path

from tessera.artifacts.files import file_digest
from tessera.artifacts.logs import stage
from tessera.artifacts.tables import write_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.drawn_users import draw_test_users
from tessera.settings.evaluation import Evaluation

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    settings = json.loads(snakemake.params.cfg)
    cases = load_dataset(Path(snakemake.input.interactions).parent).cases("test")
    table = draw_test_users(cases, Evaluation.model_validate(settings))
    inputs = {"interactions": file_digest(snakemake.input.interactions)}
    write_table(snakemake.output[0], table, "test_users", settings, inputs)
