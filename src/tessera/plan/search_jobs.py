"""What the jobs of a search get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tessera.plan.graph import Noun
from tessera.plan.params import Files, Told, canonical, part_of
from tessera.plan.search import asked_round, asking, is_searched, searched, trial_run

if TYPE_CHECKING:
    from tessera.plan.jobs import Jobs


class SearchJobs:
    """Files and settings of trials, of rounds, and of what they choose."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.plan, self.config, self.root = jobs, jobs.plan, jobs.config, jobs.root

    def trial_file(self, dataset: str, name: str, trial: int | str) -> str:
        """What a trial of `system/recommender` came to."""
        return self.jobs.file(Noun("trial", f"{name}/trial-{trial}"), dataset)

    def search_file(self, dataset: str, name: str, file: str = "best.json") -> str:
        """What is chosen for `system/recommender`; `search.json` beside it tells of all trials."""
        return self.jobs.file(Noun("trial", name), dataset, file)

    def trials(self, dataset: str, name: str) -> list[str]:
        """All trials of `system/recommender`."""
        assert self.config.search is not None
        return [self.trial_file(dataset, name, trial) for trial in range(self.config.search.trials)]

    def trial(self, name: str, trial: int, dataset: str) -> Told:
        """What a trial depends on."""
        files = self.jobs.outside(self.searched_run(name), dataset)
        return canonical(part_of(trial_run(self.plan, name, trial), ["remarks"])).beside(files)

    def asked(self, dataset: str, name: str, trial: int) -> Files:
        """The file that says what a trial sets, where it learns from earlier ones, as a named input."""
        assert self.config.search is not None
        number = asked_round(self.config.search, trial)
        return {"asked": self.search_file(dataset, name, f"round-{number}.json")} if number else {}

    def rounds_before(self, dataset: str, name: str, number: int) -> list[str]:
        """The trials of `system/recommender` that a round learns from."""
        assert self.config.search is not None
        return [self.trial_file(dataset, name, trial) for trial in range(number * self.config.search.round)]

    def asking(self, name: str) -> str:
        """What the values of a round depend on besides those trials."""
        return canonical(part_of(asking(self.plan, name)))

    def searched_run(self, name: str) -> Noun:
        """The run whose first seed the trials of `system/recommender` train."""
        return Noun("run", searched(self.plan)[name].path)

    def chosen(self, noun: Noun, dataset: str) -> Files:
        """The settings that a search chose for a run, as a named input."""
        run = self.plan.trained[noun.name]
        if not is_searched(self.plan, run):
            return {}
        return {"chosen": self.search_file(self.jobs.raw(dataset), run.row)}

    def searches(self) -> list[str]:
        """What all searches of the experiment came to."""
        datasets = self.config.experiment.datasets
        return [self.search_file(dataset, name, "search.json") for dataset in datasets for name in searched(self.plan)]
