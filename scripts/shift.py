"""Choose, once for all systems, the test users of the sets that differ from training."""

import json
from pathlib import Path

from pydantic import TypeAdapter

from tessera.artifacts.files import file_digest
from tessera.artifacts.logs import stage
from tessera.artifacts.tables import write_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.drawn_users import of_drawn_users
from tessera.evaluation.shift import members
from tessera.settings.shift import Shift

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    settings = json.loads(snakemake.params.cfg)
    shifts = TypeAdapter(dict[str, Shift]).validate_python(settings["shift"])
    dataset = load_dataset(Path(snakemake.input.interactions).parent)
    drawn = snakemake.input.get("drawn")
    judged = of_drawn_users(drawn, dataset.cases("test")).users if drawn else None
    table, facts = members(dataset, shifts, settings["cold"], settings["repeats"], judged)
    inputs = {"interactions": file_digest(snakemake.input.interactions)}
    write_table(snakemake.output[0], table, "shifts", settings, inputs, facts=facts)
