"""Write an item table from vectors that exist already."""

from pathlib import Path

from pydantic import TypeAdapter

from tessera.artifacts.logs import stage
from tessera.data.collaborative import collaborative_table
from tessera.data.vectors import import_table
from tessera.settings.recipes.base import ItemTable
from tessera.settings.recipes.collaborative import CollaborativeTable

with stage(snakemake.log[0]):
    recipe = TypeAdapter(ItemTable).validate_json(snakemake.params.cfg)
    output = snakemake.output[0]
    if isinstance(recipe, CollaborativeTable):
        data = Path(snakemake.input.catalogue).parent
        collaborative_table(recipe, Path(snakemake.input.source), data, Path(output))
    else:
        import_table(recipe, snakemake.input.source, snakemake.input.catalogue, output)
