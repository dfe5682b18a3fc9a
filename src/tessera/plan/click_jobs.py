"""What the jobs get that judge click-through rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tessera.plan.graph import Noun, kind_modules
from tessera.plan.params import Files, canonical, part_of
from tessera.settings.ctr import CTRRun

if TYPE_CHECKING:
    from tessera.plan.jobs import Jobs

AFTER_PREDICTIONS = ("resamples", "level")
"""Keys of the judge of clicks that the table alone reads: intervals and tests are made of the predictions."""


class ClickJobs:
    """Files, settings and modules of click-through runs that are judged."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.plan, self.config, self.root = jobs, jobs.plan, jobs.config, jobs.root

    def content_pictures(self, dataset: str) -> Files:
        """The stamp of the dataset's pictures, where click models read them."""
        ctr = self.config.ctr
        return {"pictures": self.jobs.pictures(dataset)} if ctr is not None and ctr.content.picture else {}

    def reference(self, run: CTRRun) -> CTRRun | None:
        """The run to which the retrieval of another of the same seed is compared; None where nothing is retrieved."""
        ctr = self.config.ctr
        name = ctr.reference if ctr is not None and ctr.evaluation.recall_samples else None
        return self.plan.click_runs[f"{name}/seed-{run.seed}"] if name and run.model.retrieves else None

    def judged_click_run(self, noun: Noun, dataset: str) -> Files:
        """What judging a click-through run reads: its own codes or the reference's, and the reference's weights."""
        reference = self.reference(self.plan.click_runs[noun.name])
        if reference is None:
            return self.jobs.inputs(noun, dataset)
        other = Noun("click_run", reference.path)
        return {
            **self.jobs.inputs(noun, dataset),
            **self.jobs.inputs(other, dataset),
            "reference": self.jobs.file(other, dataset),
        }

    def click_oracle(self) -> str:
        """What judging the true probabilities of clicks depends on."""
        assert self.config.ctr is not None
        return canonical(part_of(self.config.ctr.evaluation, AFTER_PREDICTIONS))

    def click_evaluation(self, noun: Noun) -> str:
        """What judging a click-through run depends on."""
        assert self.config.ctr is not None
        run = self.plan.click_runs[noun.name]
        reference = self.reference(run)
        cfg = {"run": part_of(run), "evaluation": part_of(self.config.ctr.evaluation, AFTER_PREDICTIONS)}
        return canonical(cfg | ({"reference": part_of(reference)} if reference is not None else {}))

    def judging_modules(self, noun: Noun) -> list[str]:
        """Modules that judging a click-through run loads by name."""
        run = self.plan.click_runs[noun.name]
        return kind_modules(run, self.reference(run))
