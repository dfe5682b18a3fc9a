"""Generate the demo world: raw tables, pictures and the truth behind them."""

import json
from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.data.bazaar.generate import generate
from tessera.settings.sources.bazaar import BazaarSource

with stage(snakemake.log[0], attempt=snakemake.resources.attempt):
    settings = json.loads(snakemake.params.cfg)
    max_rejected = settings.pop("max_rejected", 1.0)
    generate(BazaarSource.model_validate(settings), Path(snakemake.output.interactions).parent, max_rejected)
