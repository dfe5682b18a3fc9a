"""Which systems know what only the maker of a generated world knows."""

from __future__ import annotations

from tessera.plan.graph import Noun, Plan
from tessera.settings.config import Config

_TRUTH = {"raw/latents.parquet", "raw/truth.parquet"}


def knows_the_truth(plan: Plan) -> set[str]:
    """Systems that read what only the maker of a generated world knows, and the oracle: bounds, and never the best."""
    runs = [(run.system, Noun("run", run.path)) for run in plan.runs]
    runs += [(run.name, Noun("click_run", path)) for path, run in plan.click_runs.items()]
    return {system for system, run in runs if _reads_truth(plan, run)} | {"oracle"}


def _reads_truth(plan: Plan, run: Noun) -> bool:
    """Whether a run reads a table made of the truth, itself or through codes, starts and other runs."""
    tables = (noun.name for noun in plan.closure([run]) if noun.kind == "table")
    return any(_is_truth(plan.config, table) for table in tables)


def _is_truth(config: Config, table: str) -> bool:
    """Whether a table is made of a file that only a generated world has."""
    return bool(_TRUTH.intersection(config.tables[table].READS_OF_DATASET.values()))
