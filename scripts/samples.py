"""Make impressions with labels, and the histories before them."""

from pathlib import Path

from pydantic import TypeAdapter

from tessera.artifacts.logs import stage
from tessera.ctr.samples import make_samples
from tessera.settings.ctr import Samples

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    make_samples(
        TypeAdapter(Samples).validate_json(snakemake.params.cfg),
        Path(snakemake.input.interactions).parent,
        Path(snakemake.output.samples).parent,
    )
