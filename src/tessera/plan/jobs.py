"""What a noun's job gets: files as named inputs, settings as JSON, and the modules that it loads by name.

Rules carry these as inputs and params; a job whose params are unchanged is not run again. What searches, tables and the
page, lists and exports, and judged clicks get besides has a room of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tessera.artifacts.places import PICTURES, experiment_folder, place
from tessera.artifacts.run_folder import DESCRIPTION, RunFolder
from tessera.data.downloads import DataFileError
from tessera.data.files import files_below, find, model_files, parts
from tessera.data.picture_stamp import look_again
from tessera.plan.click_jobs import ClickJobs
from tessera.plan.comparison_jobs import ComparisonJobs
from tessera.plan.graph import Noun, Plan, kind_modules
from tessera.plan.params import Files, Part, Told, canonical, every, part_of
from tessera.plan.search import remark
from tessera.plan.search_jobs import SearchJobs
from tessera.plan.serving_jobs import ServingJobs
from tessera.plan.warm_start import start_folder
from tessera.settings.base import Settings
from tessera.settings.config import on_everything
from tessera.settings.language import FolderModel
from tessera.settings.references import walk
from tessera.settings.runs import Run
from tessera.settings.sources.base import ingest_settings, prepare_settings

AFTER_TRAINING = ("pca", "whiten", "l2", "shuffle")
"""Keys of a recipe that training does not read."""


def _listed(path: Path) -> list[Path]:
    """The parts of a table; of a folder that holds another form, which the code of a system of your own knows, all."""
    try:
        return parts(path)
    except DataFileError:
        return files_below(path)


class Jobs:
    """Inputs, settings and modules of every stage of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.config = plan.config
        self.root = experiment_folder(plan.config.experiment.name or "experiment")
        """Where all that this experiment makes lies."""
        self.search, self.serving = SearchJobs(self), ServingJobs(self)
        self.comparison, self.clicks = ComparisonJobs(self), ClickJobs(self)

    # ------------------------------------------------------------ files

    def file(self, noun: Noun, dataset: str, name: str = "") -> str:
        """The path of what a noun's job makes, or of another file (`name`) in the folder that it makes."""
        return f"{self.root}/{dataset}/{place(noun.kind, noun.name, name)}"

    def inputs(self, noun: Noun, dataset: str, judged: bool = False) -> Files:
        """What a noun's job reads besides the dataset, as named inputs.

        Args:
            judged: for the job that judges a run, which reads no other run, and no file that the system names.
        """
        files: Files = {}
        for read in self.plan.reads(noun):
            if read.kind == "model":
                second = noun.kind == "table" and read.name == self.plan.writer(noun.name)
                own = self._model(read.name, dataset)
                files |= {f"writer_{key}": file for key, file in own.items()} if second else own
            elif read.kind == "semantic_ids":
                files |= {"codes": self.file(read, dataset), "codebooks": self.file(read, dataset, "model.safetensors")}
            elif read.kind in ("table", "captions"):
                key = "tables" if read.kind == "table" else "captions"
                files[key] = [*files.get(key, []), self.file(read, dataset)]
            elif read.kind == "embedder":
                files["embedder"] = self.file(read, dataset)
            elif read.kind == "run" and not judged:
                if noun.kind == "run" and self.plan.trained[noun.name].members:
                    files["members"] = [*files.get("members", []), self.file(read, dataset)]
                    described = self.file(read, dataset, DESCRIPTION)
                    files["member_descriptions"] = [*files.get("member_descriptions", []), described]
                else:
                    files["teacher"] = self.file(read, dataset)
        if noun.kind == "run" and not judged:
            files |= self._start(self.plan.trained[noun.name], dataset)
        if noun.kind == "click_run" and self.plan.click_runs[noun.name].model.READS_CONTENT:
            files["content"] = f"{self.root}/{dataset}/ctr/content/content.json"
        if not judged:
            files |= self._source(noun, dataset)
            source = files.get("source", [])
            known = [source] if isinstance(source, str) else source
            if more := [file for file in self._named(noun) if file not in known]:
                files["files"] = more
        return files | self._pictures(noun, dataset)

    def _named(self, noun: Noun) -> list[str]:
        """The files that settings of kinds from outside name."""
        named = [file for _, part in self.plan.parts(noun) for files in part.named_files().values() for file in files]
        return list(dict.fromkeys(str(part) for file in named for part in files_below(find(file))))

    def _start(self, run: Run, dataset: str) -> Files:
        """The files of the run that a training goes on from."""
        if run.training.warm_start is None:
            return {}
        files = RunFolder(self.start_folder(run, dataset))
        named = {"start": files.model, "start_description": files.description, "start_items": files.items}
        return {key: str(file) for key, file in named.items()}

    def start_folder(self, run: Run, dataset: str) -> Path:
        """The folder of the run that a training goes on from; raises as `warm_start.start_folder`."""
        assert run.training.warm_start is not None
        return start_folder(run.training.warm_start, run.path, dataset)

    def going_on(self) -> list[tuple[str, Run]]:
        """The trainings that go on from an earlier run, each with its dataset."""
        experiment = dict.fromkeys(self.config.experiment.datasets, self.plan.nouns)
        in_the_end = self.plan.closure(Noun("run", path) for path in self.final())
        nouns = {**experiment, **dict.fromkeys(self.config.finals, in_the_end)}
        runs = [
            (name, self.plan.trained[one.name]) for name, needed in nouns.items() for one in needed if one.kind == "run"
        ]
        return [(name, run) for name, run in runs if run.training.warm_start is not None]

    def caption_parts(self, noun: Noun, dataset: str) -> Files:
        """The parts that captions are put together from, where several jobs make them, as a named input."""
        jobs = self.config.captions[noun.name].jobs
        return {"parts": [self.file(noun, dataset, f"part-{part}.json") for part in range(jobs)]} if jobs > 1 else {}

    def _pictures(self, noun: Noun, dataset: str) -> Files:
        """The stamp of the dataset's pictures, where the job opens them."""
        source = self.config.datasets[dataset].source
        reads = any(part.reads_pictures(source) for _, part in walk(self.plan.own(noun)))
        return {"pictures": self.pictures(dataset)} if reads else {}

    def pictures(self, dataset: str) -> str:
        """The path of what is told of a dataset's pictures; it changes with every one of them."""
        return f"{self.root}/{self.raw(dataset)}/{PICTURES}"

    def look_again(self) -> None:
        """Look once at every folder of pictures, so that what reads them is made again where they have changed."""
        for dataset in self.config.experiment.datasets:
            look_again(Path(self.pictures(dataset)))

    def _model(self, name: str, dataset: str) -> Files:
        """The folder of a model that is built on the spot, or the files of one that is there already."""
        model = self.config.models[name]
        if isinstance(model, FolderModel):
            return {"language_model_files": [str(path) for path in model_files(find(model.folder))]}
        return {"language_model": self.file(Noun("model", name), dataset)} if self.plan.built(name) else {}

    def _source(self, noun: Noun, dataset: str) -> Files:
        """The file that given scores, codes or vectors, or the truth, come from."""
        if noun.kind == "run":
            run = self.plan.trained[noun.name]
            path = run.method.source(dataset, run.seed)
            return {"source": [str(file) for file in _listed(find(path))]} if path is not None else {}
        if noun.kind not in ("table", "semantic_ids"):
            return {}
        settings = (self.config.tables if noun.kind == "table" else self.config.semantic_ids)[noun.name]
        if (path := getattr(settings, "path", None)) is not None:
            return {"source": str(find(path))}
        return {
            name: f"{self.root}/{self.raw(dataset) if file.startswith('raw/') else dataset}/{file}"
            for name, file in settings.READS_OF_DATASET.items()
        }

    def raw(self, dataset: str) -> str:
        """The dataset whose raw rows a dataset is made of: itself, or what is trained on to the end."""
        return self.config.finals.get(dataset, dataset)

    def hidden(self, dataset: str) -> Files:
        """The true attributes of a generated world, as a named input."""
        return (
            {"latents": f"{self.root}/{self.raw(dataset)}/raw/latents.parquet"} if self.plan.generated(dataset) else {}
        )

    def validated(self, noun: Noun, dataset: str) -> Files:
        """The description of the run that says how long a final one is trained, as a named input."""
        if dataset not in self.config.finals or self.plan.trained[noun.name].heuristic:
            return {}
        return {"validated": self.file(noun, self.raw(dataset), DESCRIPTION)}

    # ------------------------------------------------------------ settings

    def ingest(self, dataset: str) -> Told:
        """What reading or generating a dataset depends on: not its cleaning, split or prompt."""
        return canonical(ingest_settings(self.config.datasets[dataset]))

    def prepare(self, dataset: str) -> str:
        """How a log becomes a dataset; click models read a given order of parts, and cut for themselves."""
        settings = self.config.datasets[dataset]
        if self.config.task == "ctr" and settings.split.kind == "given":
            settings = on_everything(settings)
        return canonical(prepare_settings(settings))

    def settings(self, noun: Noun, dataset: str) -> Told:
        """What a noun's job depends on besides its inputs and its code; of files from outside, their sizes."""
        return self._settings(noun, dataset).beside(self.outside(noun, dataset))

    def outside(self, noun: Noun, dataset: str) -> list[str]:
        """The files that a noun's job reads and that nothing in the experiment makes."""
        return [file for file in every(self.inputs(noun, dataset)) if not file.startswith(f"{self.root}/")]

    def _settings(self, noun: Noun, dataset: str) -> Told:
        prompt = part_of(self.config.datasets[dataset].prompt)
        if noun.kind == "run":
            return canonical(part_of(self.plan.trained[noun.name], ["remarks"]))
        if noun.kind == "click_run":
            return canonical(part_of(self.plan.click_runs[noun.name], ["remarks"]))
        if noun.kind == "semantic_ids":
            return canonical({"settings": part_of(self.config.semantic_ids[noun.name])})
        if noun.kind == "model":
            source = self.config.datasets[dataset].source
            return canonical({"model": part_of(self.config.models[noun.name]), "prompt": prompt, "source": source})
        if noun.kind == "captions":
            captions = self.config.captions[noun.name]
            model = part_of(self.config.models[captions.model])
            return canonical({"captions": part_of(captions), "model": model, "prompt": prompt})
        return self._recipe(noun, prompt)

    def _recipe(self, noun: Noun, prompt: Part) -> Told:
        """A recipe with its names resolved; training reads no key of what is done to the vectors afterwards."""
        recipe: Settings = self.config.tables[noun.name]
        reader = self.plan.reader(noun.name)
        if reader is None:
            return canonical(part_of(recipe))
        without = AFTER_TRAINING if noun.kind == "embedder" else ()
        task = {"table": part_of(recipe, without), "model": part_of(self.config.models[reader.model]), "prompt": prompt}
        if (writer := self.plan.writer(noun.name)) is not None:
            task["writer"] = part_of(self.config.models[writer])
        begun = self.plan.begun(noun.name)
        return canonical(task | ({"start": part_of(begun, without)} if begun is not None else {}))

    def evaluation(self, noun: Noun | None = None) -> str:
        """What judging a run depends on; the oracle has no noun."""
        evaluation = part_of(self.config.evaluation, ["shift"])
        run = self.plan.trained[noun.name] if noun is not None else None
        if run is not None:
            of_members = [f"{one.row}: {text}" for one in run.members if (text := remark(self.plan, one))]
            own = remark(self.plan, run)
            run = run.model_copy(update={"remarks": [*run.remarks, *([own] if own else []), *of_members]})
        return canonical({"evaluation": evaluation} | ({"run": part_of(run)} if run is not None else {}))

    def shift(self) -> str:
        """What test sets that differ from training depend on: who counts at all, besides the sets."""
        evaluation = self.config.evaluation
        counted = {"cold": evaluation.cold_targets != "drop", "repeats": evaluation.repeat_targets != "drop"}
        return canonical({"shift": evaluation.model_dump(mode="json")["shift"], **counted})

    def drawn_users(self) -> str:
        """What the drawing of test users depends on."""
        return canonical(self.config.evaluation.model_dump(mode="json", include={"test_users", "test_users_seed"}))

    def final(self) -> list[str]:
        """Folders of the runs that are trained on everything in the end."""
        return self.first_seeds(self.config.experiment.final)

    def first_seeds(self, names: Iterable[str]) -> list[str]:
        """Folders of the runs that names stand for: of several seeds the first."""
        paths: dict[tuple[str, str], str] = {}
        for run in self.plan.runs:
            if {run.system, run.row} & set(names):
                paths.setdefault((run.system, run.recommender), run.path)
        return list(paths.values())

    # ------------------------------------------------------------ code

    def modules(self, noun: Noun) -> list[str]:
        """Modules that a noun's job loads by name."""
        if noun.kind == "run":
            return kind_modules(self.plan.trained[noun.name])
        if noun.kind == "click_run":
            return kind_modules(self.plan.click_runs[noun.name])
        if noun.kind == "semantic_ids":
            return kind_modules(self.config.semantic_ids[noun.name])
        if noun.kind in ("table", "embedder"):
            return kind_modules(self.config.tables[noun.name], self.plan.begun(noun.name))
        return []

    def source_modules(self, dataset: str) -> list[str]:
        """Modules that reading a dataset loads by name."""
        return kind_modules(self.config.datasets[dataset])
