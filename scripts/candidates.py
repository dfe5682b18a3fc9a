"""Draw, or read from a published file, the negatives of the sampled protocol."""

import json
from pathlib import Path

from tessera.artifacts.files import file_digest
from tessera.artifacts.logs import stage
from tessera.artifacts.tables import write_table
from tessera.data.dataset import load_dataset, read_raw_ids
from tessera.evaluation.candidates import check_all_users, parse_candidates, sample_candidates
from tessera.evaluation.drawn_users import of_drawn_users
from tessera.settings.evaluation import SampledRanking

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    settings = json.loads(snakemake.params.cfg)
    data = Path(snakemake.input.interactions).parent
    dataset = load_dataset(data)
    cases = of_drawn_users(snakemake.input.get("drawn"), dataset.cases("test"))
    if settings["kind"] == "sampled":
        table = sample_candidates(cases, SampledRanking.model_validate(settings), dataset.train_counts)
    else:
        published, users = snakemake.input.published, read_raw_ids(data, "users")
        table = parse_candidates(published, users, read_raw_ids(data, "items"))
        check_all_users(published, table, cases, users)
    inputs = {"interactions": file_digest(snakemake.input.interactions)}
    write_table(snakemake.output[0], table, "candidates", settings, inputs)
