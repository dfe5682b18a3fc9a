"""Write an item table from vectors that exist already."""

from pydantic import TypeAdapter

from tessera.artifacts.logs import stage
from tessera.data.vectors import import_table
from tessera.settings.config import ItemTable

with stage(snakemake.log[0]):
    recipe = TypeAdapter(ItemTable).validate_json(snakemake.params.cfg)
    import_table(recipe, snakemake.input.source, snakemake.input.catalogue, snakemake.output[0])
