"""Write an item table that no language model makes: from a file of vectors, from a run, or from the truth."""

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from tessera.artifacts.logs import stage
from tessera.artifacts.tables import check_item_table
from tessera.settings.kinds import implementation
from tessera.settings.recipes.base import ItemTable
from tessera.settings.references import ONE_ROW

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    recipe = TypeAdapter(ItemTable).validate_json(snakemake.params.cfg)
    make = implementation(recipe)
    if isinstance(make, type):
        raise ValueError(
            f"{recipe.code()} is a class, as of a recipe that a model makes; {type(recipe).__name__} names no model "
            "(it extends tessera.settings.language.ReadText), so its code is a function (recipe, files, output)"
        )
    make(recipe, dict(snakemake.input.items()), snakemake.output[0])
    if ONE_ROW in recipe.offers():
        check_item_table(snakemake.output[0], pq.read_metadata(snakemake.input.catalogue).num_rows)
