"""Write an item table that no language model makes: from a file of vectors, from a run, or from the truth."""

from pydantic import TypeAdapter

from tessera.artifacts.logs import stage
from tessera.settings.kinds import implementation
from tessera.settings.recipes.base import ItemTable

with stage(snakemake.log[0]):
    recipe = TypeAdapter(ItemTable).validate_json(snakemake.params.cfg)
    implementation(recipe)(recipe, dict(snakemake.input.items()), snakemake.output[0])
