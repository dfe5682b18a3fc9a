"""What the jobs get that hand runs on: lists for all users, and folders to take away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tessera.artifacts.places import FINISH, final_name, place
from tessera.artifacts.run_folder import DESCRIPTION
from tessera.data.downloads import is_url
from tessera.data.files import find, parts
from tessera.plan.graph import Noun
from tessera.plan.params import Files, Told, canonical, every, part_of

if TYPE_CHECKING:
    from tessera.plan.jobs import Jobs


class ServingJobs:
    """Files, settings and modules of lists and of exported runs."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.plan, self.config, self.root = jobs, jobs.plan, jobs.config, jobs.root

    def recommend(self, noun: Noun) -> Told:
        """What lists for all users depend on."""
        run = part_of(self.plan.trained[noun.name], ["remarks"])
        files = every(self.recommend_files())
        return canonical({"recommend": part_of(self.config.recommend), "run": run}).beside(files)

    def recommend_files(self) -> Files:
        """The lists of items and of users that a config names, as named inputs."""
        named = {"stock": self.config.recommend.items, "wanted": self.config.recommend.users}
        files: Files = {key: str(find(path)) for key, path in named.items() if path is not None}
        new = self.config.recommend.new_items
        if new is not None and not is_url(new.path):
            files["new"] = [str(path) for path in parts(find(new.path))]
        return files

    def readers(self, noun: Noun, dataset: str) -> Files:
        """What the tables of a run are made with, where lists hold items that came after training."""
        if self.config.recommend.new_items is None:
            return {}
        files: list[str] = []
        for table in self.plan.trained[noun.name].tables:
            if self.plan.reader(table) is None:
                continue
            made = Noun("table", table)
            files.append(f"{self.root}/{dataset}/{place('table', table, FINISH)}")
            for read in self.plan.reads(made):
                if read.kind == "embedder" or (read.kind == "model" and self.plan.built(read.name)):
                    files.append(self.jobs.file(read, dataset))
        return {"readers": files}

    def recommend_modules(self, noun: Noun) -> list[str]:
        """Modules that lists for all users load by name: new items are read by what made the tables of the run."""
        modules = self.jobs.modules(noun)
        if self.config.recommend.new_items is not None:
            modules += ["tessera.serving.new_items"]
            modules += [
                name for t in self.plan.trained[noun.name].tables for name in self.jobs.modules(Noun("table", t))
            ]
        return list(dict.fromkeys(modules))

    def export(self, noun: Noun) -> str:
        """What the folder of a run that is handed on depends on."""
        run = part_of(self.plan.trained[noun.name], ["remarks"])
        return canonical({"export": part_of(self.config.export), "run": run})

    def exported_files(self, noun: Noun, dataset: str) -> Files:
        """The run, the dataset and the judgement that such a folder is made of, as named inputs."""
        data = {"interactions": "interactions.parquet", "catalogue": "items.parquet", "users": "users.parquet"}
        return {
            **self.jobs.inputs(noun, dataset, judged=True),
            "model": self.jobs.file(noun, dataset),
            "description": self.jobs.file(noun, dataset, DESCRIPTION),
            # a final run is not judged: what was validated under the same settings is
            "metrics": self.jobs.file(noun, self.jobs.raw(dataset), "metrics.json"),
            "stats": f"{self.root}/{dataset}/data/stats.json",
            **{name: f"{self.root}/{dataset}/data/{file}" for name, file in data.items()},
        }

    def exported_run(self, name: str) -> Noun:
        """The run that `system/recommender` stands for: of several seeds the first."""
        return Noun("run", next(path for path in self.plan.trained if path.rpartition("/")[0] == name))

    def exported(self) -> list[str]:
        """The folders that the experiment asks for, as paths below its own."""
        asked = self._of_runs(self.config.experiment.export)
        return [f"{dataset}/export/{run.rpartition('/')[0]}" for dataset, run in asked]

    def recommended(self) -> list[str]:
        """The lists that the experiment asks for, as paths below its folder."""
        asked = self._of_runs(self.config.experiment.recommend)
        return [f"{dataset}/recommendations/{run}" for dataset, run in asked]

    def _of_runs(self, names: list[str]) -> list[tuple[str, str]]:
        """Dataset and run of every name on every dataset: the final one, where there is one."""
        final = set(self.jobs.final())
        return [
            (final_name(dataset) if run in final else dataset, run)
            for dataset in self.config.experiment.datasets
            for run in self.jobs.first_seeds(names)
        ]
