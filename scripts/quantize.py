"""Make semantic IDs."""

import json
from pathlib import Path

from pydantic import TypeAdapter

from tessera.artifacts.logs import stage
from tessera.artifacts.places import state_folder
from tessera.quantization.quantize import quantize
from tessera.settings.quantizers.base import SemanticIds

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt, snakemake.resources.get("gpu", 0)):
    settings = TypeAdapter(SemanticIds).validate_python(json.loads(snakemake.params.cfg)["settings"])
    quantize(
        settings,
        dict(zip(getattr(settings, "tables", []), map(Path, snakemake.input.get("tables", [])), strict=True)),
        Path(snakemake.input.source) if snakemake.input.get("source") else None,
        Path(snakemake.input.interactions).parent,
        Path(snakemake.output.codes),
        state_folder(snakemake.output[0]),
        snakemake.params.code,
    )
