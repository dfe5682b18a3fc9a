"""The stages of a config with their fingerprints, as the workflow's rules would carry them.

Run as a program, with a library on the path, it tells those of the two tiny configs as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tessera.artifacts.code import code_fingerprint, code_modules
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.settings.config import load

CONFIGS = ("tiny.yaml", "ctr-tiny.yaml", "tpad.yaml")
SCRIPTS = {
    "model": ("pretrain.py",), "captions": ("caption.py", "caption_part.py"), "embedder": ("tune.py",),
    "semantic_ids": ("quantize.py", "health.py"), "run": ("train.py", "evaluate.py", "corrupt.py"),
    "click_run": ("train_ctr.py", "evaluate_ctr.py"),
}  # fmt: skip
OTHERS = ("prepare.py", "diagnose.py", "atlas.py", "candidates.py", "test_users.py", "shift.py", "oracle.py",
          "samples.py", "oracle_ctr.py", "generate.py", "robustness.py")  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One job."""

    name: str
    script: Path
    kinds: tuple[str, ...]
    """Modules of the kinds that it loads by name."""
    settings: str
    """What its rule carries besides the code."""

    @property
    def fingerprint(self) -> str:
        """Of code and settings."""
        return f"{code_fingerprint(str(self.script), self.kinds)} {self.settings}"

    @property
    def modules(self) -> set[Path]:
        """Every file that its code hash covers."""
        return set(code_modules(self.script, self.kinds))


def _scripts(plan: Plan, noun: Noun) -> tuple[str, ...]:
    if noun.kind == "table":
        return ("embed.py" if plan.reader(noun.name) else "table.py",)
    return SCRIPTS[noun.kind]


def stages(root: Path) -> Iterator[Stage]:
    """Those of both configs of a copy of the repository."""
    for config in CONFIGS:
        plan = Plan(load(yaml.safe_load((root / "config" / config).read_text())))
        jobs = Jobs(plan)
        (dataset,) = plan.config.experiment.datasets
        for noun in plan.nouns:
            for script in _scripts(plan, noun):
                told = jobs.settings(noun, dataset) + str(jobs.inputs(noun, dataset))
                modules = tuple(jobs.modules(noun))
                yield Stage(f"{config} {script} {noun.name}", root / "scripts" / script, modules, told)
        ingest = tuple(jobs.source_modules(dataset))
        yield Stage(f"{config} ingest.py", root / "scripts/ingest.py", ingest, jobs.ingest(dataset))
        for script, module in (
            ("tables.py", jobs.comparison.task.table_module),
            ("claims.py", jobs.comparison.task.claims_module),
            ("report.py", jobs.comparison.task.page_module),
        ):
            yield Stage(f"{config} {script}", root / "scripts" / script, (module,), jobs.comparison.table(dataset))
        for script in OTHERS:
            yield Stage(f"{config} {script}", root / "scripts" / script, (), jobs.comparison.table(dataset))


if __name__ == "__main__":
    print(json.dumps({stage.name: stage.fingerprint for stage in stages(Path(sys.argv[1]))}))
