"""Write what models that learn from raw content read of every item."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.content.fields import write_fields
from tessera.settings.ctr import ItemContent

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    write_fields(
        ItemContent.model_validate_json(snakemake.params.cfg),
        Path(snakemake.input.catalogue),
        Path(snakemake.output.index).parent,
    )
