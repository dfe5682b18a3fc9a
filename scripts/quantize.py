"""Make semantic IDs."""

from pathlib import Path

from tessera.artifacts.logs import stage
from tessera.quantization.quantize import quantize
from tessera.quantization.task import QuantizeTask

with stage(snakemake.log[0], snakemake.params.threads, snakemake.resources.attempt):
    task = QuantizeTask.model_validate_json(snakemake.params.cfg)
    quantize(
        task.settings,
        dict(zip(getattr(task.settings, "tables", []), map(Path, snakemake.input.get("tables", [])), strict=True)),
        Path(snakemake.input.source) if snakemake.input.get("source") else None,
        Path(snakemake.input.interactions).parent,
        Path(snakemake.output.codes),
        Path("state"),
        snakemake.params.code,
    )
