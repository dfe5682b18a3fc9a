"""What a noun's job gets: files as named inputs, settings as JSON, and the modules that it loads by name.

Rules carry these as inputs and params; a job whose params are unchanged is not run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tessera.artifacts.places import CORRUPTED, FINISH, PICTURES, REPORT, experiment_folder, final_name, place
from tessera.artifacts.run_folder import DESCRIPTION, RunFolder
from tessera.data.downloads import DataFileError, is_url
from tessera.data.files import files_below, find, model_files, parts
from tessera.data.picture_stamp import look_again
from tessera.plan.graph import Noun, Plan, kind_modules
from tessera.plan.search import asked_round, asking, is_searched, remark, searched, trial_run, unsearched
from tessera.plan.truth import knows_the_truth
from tessera.plan.warm_start import start_folder
from tessera.settings.base import Settings
from tessera.settings.ctr import CTRRun
from tessera.settings.language import FolderModel
from tessera.settings.references import ONE_ROW, walk
from tessera.settings.runs import Run
from tessera.settings.sources.base import ingest_settings, prepare_settings

Files = dict[str, str | list[str]]

AFTER_TRAINING = ("pca", "whiten", "l2", "shuffle")
"""Keys of a recipe that training does not read."""

AFTER_RANKS = (
    "cold_targets", "cutoffs", "head_share", "history_bins", "popularity_bins", "recommendations", "shift",
)  # fmt: skip
"""Keys of the judge that are read when ranks are there."""
AFTER_PREDICTIONS = ("resamples", "level")
"""Keys of the judge of clicks that the table alone reads: intervals and tests are made of the predictions."""


@dataclass(frozen=True)
class Task:
    """What the table and the page of a task are made of."""

    module: str
    """`tessera.reporting.<module>` makes the table, `<module>_page` the page."""
    run: str
    """The kind of noun that is compared."""
    cases: str
    """The file of a run that holds what each test case got."""
    suffix: str
    """Of the table's file name."""
    data: tuple[str, ...] = ()
    """Tables of the dataset that the page reads besides items and interactions."""

    @property
    def table_module(self) -> str:
        """Loaded by the job of the table."""
        return f"tessera.reporting.{self.module}"

    @property
    def claims_module(self) -> str:
        """Loaded by the job of the claims."""
        return f"tessera.reporting.{self.module}_claims"

    @property
    def page_module(self) -> str:
        """Loaded by the job of the page."""
        return f"tessera.reporting.{self.module}_page"


RANKING = Task("ranking", "run", "evaluation.parquet", "", ("users",))
CLICKS = Task("ctr", "click_run", "predictions.parquet", "-ctr")


class Told(str):
    """A text that a rule reads; where it is long, Snakemake records it, and tells of a change, by its hash.

    A job whose text changed in nothing but what `identity` leaves out is not run again.
    """

    identity: str

    def __new__(cls, text: str, identity: str | None = None) -> Told:
        """`identity` is what Snakemake records in place of the text."""
        made = super().__new__(cls, text)
        made.identity = text if identity is None else identity
        return made

    def beside(self, files: Iterable[str | Path]) -> Told:
        """The same text for a job that reads files which nothing here makes; their sizes are recorded with it.

        Snakemake goes by times alone: a file replaced by one with an older time (unpacked, moved, copied with its time)
        would not be noticed.
        """
        sizes = [size for file in files if (size := _size(file)) is not None]
        return Told(str(self), f"{self.identity} {sizes}") if sizes else self

    def __repr__(self) -> str:
        recorded = self.identity
        return repr(recorded) if len(recorded) < 500 else f"sha256:{hashlib.sha256(recorded.encode()).hexdigest()[:16]}"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def _size(file: str | Path) -> int | None:
    """Bytes of a file; None where there is none."""
    path = Path(file)
    return path.stat().st_size if path.is_file() else None


def _listed(path: Path) -> list[Path]:
    """The parts of a table; of a folder that holds another form, which the code of a system of your own knows, all."""
    try:
        return parts(path)
    except DataFileError:
        return files_below(path)


def _every(files: Files) -> list[str]:
    """The files of named inputs."""
    return [file for named in files.values() for file in ([named] if isinstance(named, str) else named)]


def canonical(value: Any) -> Told:
    """Params as sorted JSON: Snakemake compares dicts in the order of their keys."""
    return Told(*(json.dumps(_picked(value, whole), sort_keys=True) for whole in (True, False)))


class Part(NamedTuple):
    """Settings in the params of a job."""

    whole: dict[str, Any]
    identity: dict[str, Any]
    """Without what no result depends on."""


def _told(settings: Settings, without: Iterable[str] = ()) -> Part:
    left_out = set(without)
    both = (settings.model_dump(mode="json"), settings.identity())
    return Part(*({key: value for key, value in shown.items() if key not in left_out} for shown in both))


def _picked(value: Any, whole: bool) -> Any:
    if isinstance(value, Part):
        return value.whole if whole else value.identity
    return {key: _picked(part, whole) for key, part in value.items()} if isinstance(value, dict) else value


class Jobs:
    """Inputs, settings and modules of every stage of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.config = plan.config
        self.root = experiment_folder(plan.config.experiment.name or "experiment")
        """Where all that this experiment makes lies."""

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

    def content_pictures(self, dataset: str) -> Files:
        """The stamp of the dataset's pictures, where click models read them."""
        ctr = self.config.ctr
        return {"pictures": self.pictures(dataset)} if ctr is not None and ctr.content.picture else {}

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

    # ------------------------------------------------------------ search

    def trial_file(self, dataset: str, name: str, trial: int | str) -> str:
        """What a trial of `system/recommender` came to."""
        return self.file(Noun("trial", f"{name}/trial-{trial}"), dataset)

    def search_file(self, dataset: str, name: str, file: str = "best.json") -> str:
        """What is chosen for `system/recommender`; `search.json` beside it tells of all trials."""
        return self.file(Noun("trial", name), dataset, file)

    def trials(self, dataset: str, name: str) -> list[str]:
        """All trials of `system/recommender`."""
        assert self.config.search is not None
        return [self.trial_file(dataset, name, trial) for trial in range(self.config.search.trials)]

    def trial(self, name: str, trial: int, dataset: str) -> Told:
        """What a trial depends on."""
        files = self._outside(self.searched_run(name), dataset)
        return canonical(_told(trial_run(self.plan, name, trial), ["remarks"])).beside(files)

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
        return canonical(_told(asking(self.plan, name)))

    def searched_run(self, name: str) -> Noun:
        """The run whose first seed the trials of `system/recommender` train."""
        return Noun("run", searched(self.plan)[name].path)

    def chosen(self, noun: Noun, dataset: str) -> Files:
        """The settings that a search chose for a run, as a named input."""
        run = self.plan.trained[noun.name]
        if not is_searched(self.plan, run):
            return {}
        return {"chosen": self.search_file(self.raw(dataset), run.row)}

    def searches(self) -> list[str]:
        """What all searches of the experiment came to."""
        datasets = self.config.experiment.datasets
        return [self.search_file(dataset, name, "search.json") for dataset in datasets for name in searched(self.plan)]

    # ------------------------------------------------------------ settings

    def ingest(self, dataset: str) -> Told:
        """What reading or generating a dataset depends on: not its cleaning, split or prompt."""
        return canonical(ingest_settings(self.config.datasets[dataset]))

    def prepare(self, dataset: str) -> str:
        """How a log becomes a dataset."""
        return canonical(prepare_settings(self.config.datasets[dataset]))

    def settings(self, noun: Noun, dataset: str) -> Told:
        """What a noun's job depends on besides its inputs and its code; of files from outside, their sizes."""
        return self._settings(noun, dataset).beside(self._outside(noun, dataset))

    def _outside(self, noun: Noun, dataset: str) -> list[str]:
        """The files that a noun's job reads and that nothing in the experiment makes."""
        return [file for file in _every(self.inputs(noun, dataset)) if not file.startswith(f"{self.root}/")]

    def _settings(self, noun: Noun, dataset: str) -> Told:
        prompt = _told(self.config.datasets[dataset].prompt)
        if noun.kind == "run":
            return canonical(_told(self.plan.trained[noun.name], ["remarks"]))
        if noun.kind == "click_run":
            return canonical(_told(self.plan.click_runs[noun.name], ["remarks"]))
        if noun.kind == "semantic_ids":
            return canonical({"settings": _told(self.config.semantic_ids[noun.name])})
        if noun.kind == "model":
            source = self.config.datasets[dataset].source
            return canonical({"model": _told(self.config.models[noun.name]), "prompt": prompt, "source": source})
        if noun.kind == "captions":
            captions = self.config.captions[noun.name]
            model = _told(self.config.models[captions.model])
            return canonical({"captions": _told(captions), "model": model, "prompt": prompt})
        return self._recipe(noun, prompt)

    def _recipe(self, noun: Noun, prompt: Part) -> Told:
        """A recipe with its names resolved; training reads no key of what is done to the vectors afterwards."""
        recipe: Settings = self.config.tables[noun.name]
        reader = self.plan.reader(noun.name)
        if reader is None:
            return canonical(_told(recipe))
        without = AFTER_TRAINING if noun.kind == "embedder" else ()
        task = {"table": _told(recipe, without), "model": _told(self.config.models[reader.model]), "prompt": prompt}
        if (writer := self.plan.writer(noun.name)) is not None:
            task["writer"] = _told(self.config.models[writer])
        begun = self.plan.begun(noun.name)
        return canonical(task | ({"start": _told(begun, without)} if begun is not None else {}))

    def evaluation(self, noun: Noun | None = None) -> str:
        """What judging a run depends on; the oracle has no noun."""
        evaluation = _told(self.config.evaluation, ["shift"])
        run = self.plan.trained[noun.name] if noun is not None else None
        if run is not None:
            of_members = [f"{one.row}: {text}" for one in run.members if (text := remark(self.plan, one))]
            own = remark(self.plan, run)
            run = run.model_copy(update={"remarks": [*run.remarks, *([own] if own else []), *of_members]})
        return canonical({"evaluation": evaluation} | ({"run": _told(run)} if run is not None else {}))

    # ------------------------------------------------------------ missing modalities

    def corruption(self, noun: Noun) -> str:
        """What judging a run at missing rates depends on: of the judge, what ranks are told by."""
        run = self.plan.trained[noun.name]
        parts = {"run": _told(run, ["remarks"]), "evaluation": _told(self.config.evaluation, AFTER_RANKS)}
        robustness = self.config.robustness
        return canonical(
            parts
            | ({"robustness": _told(robustness)} if robustness is not None else {})
            | {"modalities": self.plan.modalities(run.method)}
        )

    def corrupted(self, dataset: str) -> list[str]:
        """The ranks at missing rates of every run of the experiment that reads what is lost, or that loses something of
        its own when it is judged, which these rates replace."""
        robustness = self.config.robustness
        if robustness is None:
            return []
        reading = []
        for run in self.plan.runs:
            read = set().union(*self.plan.modalities(run.method).values())
            own = run.missing is not None and run.missing.when != "training" and bool(read)
            if own or robustness.modalities & read:
                reading.append(run.path)
        return [self.file(Noun("run", path), dataset, CORRUPTED) for path in reading]

    def robustness_inputs(self, dataset: str) -> Files:
        """Judgements, and the ranks at missing rates, as named inputs; whoever reads nothing that is lost has none."""
        return {**self.judgements(dataset), "corrupted": self.corrupted(dataset)}

    def robustness_file(self, dataset: str, ending: str) -> str:
        """The table of metrics at missing rates."""
        return self.table_file(f"{dataset}-robustness", ending)

    def robustness(self, dataset: str) -> str:
        """What that table depends on besides the ranks."""
        robustness = self.config.robustness
        shown = {"robustness": _told(robustness)} if robustness is not None else {}
        bounds = sorted(knows_the_truth(self.plan))
        return canonical({"dataset": dataset, "bounds": bounds, **shown, **self._judged_by(dataset, ["shift"])})

    def shift(self) -> str:
        """What test sets that differ from training depend on: who counts at all, besides the sets."""
        evaluation = self.config.evaluation
        counted = {"cold": evaluation.cold_targets != "drop", "repeats": evaluation.repeat_targets != "drop"}
        return canonical({"shift": evaluation.model_dump(mode="json")["shift"], **counted})

    def drawn_users(self) -> str:
        """What the drawing of test users depends on."""
        return canonical(self.config.evaluation.model_dump(mode="json", include={"test_users", "test_users_seed"}))

    def recommend(self, noun: Noun) -> Told:
        """What lists for all users depend on."""
        run = _told(self.plan.trained[noun.name], ["remarks"])
        files = _every(self.recommend_files())
        return canonical({"recommend": _told(self.config.recommend), "run": run}).beside(files)

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
                    files.append(self.file(read, dataset))
        return {"readers": files}

    def recommend_modules(self, noun: Noun) -> list[str]:
        """Modules that lists for all users load by name: new items are read by what made the tables of the run."""
        modules = self.modules(noun)
        if self.config.recommend.new_items is not None:
            modules += ["tessera.serving.new_items"]
            modules += [name for t in self.plan.trained[noun.name].tables for name in self.modules(Noun("table", t))]
        return list(dict.fromkeys(modules))

    def export(self, noun: Noun) -> str:
        """What the folder of a run that is handed on depends on."""
        run = _told(self.plan.trained[noun.name], ["remarks"])
        return canonical({"export": _told(self.config.export), "run": run})

    def exported_files(self, noun: Noun, dataset: str) -> Files:
        """The run, the dataset and the judgement that such a folder is made of, as named inputs."""
        data = {"interactions": "interactions.parquet", "catalogue": "items.parquet", "users": "users.parquet"}
        return {
            **self.inputs(noun, dataset, judged=True),
            "model": self.file(noun, dataset),
            "description": self.file(noun, dataset, DESCRIPTION),
            # a final run is not judged: what was validated under the same settings is
            "metrics": self.file(noun, self.raw(dataset), "metrics.json"),
            "stats": f"{self.root}/{dataset}/data/stats.json",
            **{name: f"{self.root}/{dataset}/data/{file}" for name, file in data.items()},
        }

    def exported_run(self, name: str) -> Noun:
        """The run that `system/recommender` stands for: of several seeds the first."""
        return Noun("run", next(path for path in self.plan.trained if path.rpartition("/")[0] == name))

    def exported(self) -> list[str]:
        """The folders that the experiment asks for, as paths below its own: of final runs, where there are."""
        final = set(self.final())
        return [
            f"{final_name(dataset) if run in final else dataset}/export/{run.rpartition('/')[0]}"
            for dataset in self.config.experiment.datasets
            for run in self._chosen(self.config.experiment.export)
        ]

    def recommended(self) -> list[str]:
        """The lists that the experiment asks for, as paths below its folder: those of final runs, where there are."""
        final = set(self.final())
        return [
            f"{final_name(dataset) if run in final else dataset}/recommendations/{run}"
            for dataset in self.config.experiment.datasets
            for run in self._chosen(self.config.experiment.recommend)
        ]

    def final(self) -> list[str]:
        """Folders of the runs that are trained on everything in the end."""
        return self._chosen(self.config.experiment.final)

    def _chosen(self, names: Iterable[str]) -> list[str]:
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

    # ------------------------------------------------------------ tables and page

    @property
    def task(self) -> Task:
        """What this config's table and page are of."""
        return CLICKS if self.config.task == "ctr" else RANKING

    def judged(self, dataset: str) -> list[str]:
        """Names of the runs that are judged on a dataset, the oracle's last where the truth is known."""
        if self.task is CLICKS:
            return [*self.plan.click_runs, *["oracle/seed-0"] * self.plan.lifelong(dataset)]
        return [*(run.path for run in self.plan.runs), *["oracle/oracle/seed-0"] * self.plan.judged_by_truth(dataset)]

    def judgements(self, dataset: str) -> Files:
        """Metrics of every judged run, and what each of its test cases got, as named inputs."""
        runs = [Noun(self.task.run, name) for name in self.judged(dataset)]
        files = {"runs": "metrics.json", "cases": self.task.cases}
        return {key: [self.file(run, dataset, file) for run in runs] for key, file in files.items()}

    def shifts(self, dataset: str) -> Files:
        """The test sets of a dataset that differ from training, as a named input; none where none is asked for."""
        asked = self.task is RANKING and self.config.evaluation.shift
        return {"shifts": f"{self.root}/{dataset}/data/shifts.parquet"} if asked else {}

    @property
    def page(self) -> str:
        """The report."""
        return f"{self.root}/{REPORT}"

    def table_file(self, dataset: str, ending: str) -> str:
        """A metric table."""
        return f"{self.root}/tables/{dataset}{self.task.suffix}.{ending}"

    def claims_file(self, dataset: str, ending: str) -> str:
        """The claims of the config, tested on a dataset."""
        return self.table_file(f"{dataset}-claims", ending)

    def shown(self) -> Files:
        """What the page reads, as named inputs."""
        datasets = self.config.experiment.datasets
        runs = [self.judgements(dataset) for dataset in datasets]
        data = ("items", "interactions", *self.task.data)

        def every(kind: str, name: str = "") -> list[str]:
            return [self.file(Noun(kind, one), dataset, name) for dataset in datasets for one in self.plan.needed(kind)]

        files: Files = {
            "tables": [self.table_file(dataset, "parquet") for dataset in datasets],
            "data": [f"{self.root}/{dataset}/data/{name}.parquet" for dataset in datasets for name in data],
            "judgements": [path for named in runs for paths in named.values() for path in paths],
            "histories": self._histories(),
            "codes": every("semantic_ids"),
            "health": every("semantic_ids", "health.json"),
            "pictures": [self.pictures(dataset) for dataset in datasets],
        }
        if self.config.robustness is not None:
            files["robustness"] = [self.robustness_file(dataset, "parquet") for dataset in datasets]
        files["claims"] = [self.claims_file(dataset, "parquet") for dataset in datasets if self.config.claims]
        if self.task is CLICKS:
            return files | {"samples": [f"{self.root}/{dataset}/ctr/samples/samples.json" for dataset in datasets]}
        return files | {
            "stats": [f"{self.root}/{dataset}/data/stats.json" for dataset in datasets],
            "diagnostics": [f"{self.root}/{d}/diagnostics/{name}.json" for d in datasets for name in self.diagnosed()],
            "atlas": [f"{self.root}/{d}/atlas/{name}.parquet" for d in datasets for name in self.mapped()],
            "searches": self.searches(),
            "captions": every("captions"),
            "embedders": every("embedder", "history.jsonl"),
        }

    def _histories(self) -> list[str]:
        """The training curve of every run that the page shows."""
        names = self.plan.click_runs if self.task is CLICKS else [run.path for run in self.plan.runs]
        runs = [Noun(self.task.run, name) for name in names]
        return [self.file(run, d, "history.jsonl") for d in self.config.experiment.datasets for run in runs]

    def diagnosed(self) -> list[str]:
        """Item tables with one row an item, which can be judged before a recommender learns from them."""
        return [name for name in self.plan.needed("table") if ONE_ROW in self.config.tables[name].offers()]

    def mapped(self) -> list[str]:
        """Item tables that a map is drawn of: those that are judged, where the report has maps at all."""
        return self.diagnosed() if self.config.report.map else []

    def codes_of(self, table: str, dataset: str) -> Files:
        """The semantic IDs of the experiment that are made of a table, as a named input."""
        nouns = [Noun("semantic_ids", name) for name in self.plan.needed("semantic_ids")]
        made = [self.file(noun, dataset) for noun in nouns if Noun("table", table) in self.plan.reads(noun)]
        return {"codes": made} if made else {}

    def table(self, dataset: str) -> str:
        """What a metric table depends on besides the evaluations."""
        bounds = sorted(knows_the_truth(self.plan))
        settings = {"dataset": dataset, "task": self.task.module, "bounds": bounds, **self._judged_by(dataset)}
        if self.config.ctr is not None and self.task is CLICKS:
            settings["against"] = self.config.ctr.against
        elif remarks := unsearched(self.plan):
            settings["remarks"] = remarks
        return canonical(settings)

    def _judged_by(self, dataset: str, without: Iterable[str] = ()) -> dict[str, Any]:
        """Judge and tests of the task; of rankings the rows as well, which clicks have in the order of their files.

        Args:
            without: keys of the ranking judge that are not read.
        """
        config = self.config
        if config.ctr is not None and self.task is CLICKS:
            return {"evaluation": _told(config.ctr.evaluation)}
        return {
            "order": self._order(dataset),
            "evaluation": _told(config.evaluation, without),
            "significance": _told(config.significance),
        }

    def _order(self, dataset: str) -> list[str]:
        """The rows of a metric table, as `system/recommender`."""
        return list(dict.fromkeys(path.rpartition("/")[0] for path in self.judged(dataset)))

    def claims(self, dataset: str) -> str:
        """What tested claims depend on besides the evaluations."""
        return canonical(
            {
                "dataset": dataset,
                "task": self.task.module,
                "claims": [claim.model_dump(mode="json") for claim in self.config.claims],
                **self._judged_by(dataset, ["shift"]),
            }
        )

    def report(self, config: dict[str, Any]) -> str:
        """What the page depends on besides its inputs; what changes no result is not shown: `resources`, `export`, and
        the experiment's name.

        Args:
            config: the config as it was written, which the page shows.
        """
        shown = {key: value for key, value in config.items() if key not in ("resources", "export")}
        shown["experiment"] = {key: value for key, value in shown.get("experiment", {}).items() if key != "name"}
        settings = {
            "task": self.task.module,
            "report": _told(self.config.report),
            "runs": {dataset: self.judged(dataset) for dataset in self.config.experiment.datasets},
            "datasets": self.config.experiment.datasets,
            "config": shown,
        }
        return canonical(settings)

    # ------------------------------------------------------------ click-through rate

    def reference(self, run: CTRRun) -> CTRRun | None:
        """The run to which the retrieval of another of the same seed is compared; None where nothing is retrieved."""
        name = self.config.ctr.reference if self.config.ctr is not None else None
        return self.plan.click_runs[f"{name}/seed-{run.seed}"] if name and run.model.retrieves else None

    def judged_click_run(self, noun: Noun, dataset: str) -> Files:
        """What judging a click-through run reads: its own codes or the reference's, and the reference's weights."""
        reference = self.reference(self.plan.click_runs[noun.name])
        if reference is None:
            return self.inputs(noun, dataset)
        other = Noun("click_run", reference.path)
        return {**self.inputs(noun, dataset), **self.inputs(other, dataset), "reference": self.file(other, dataset)}

    def click_oracle(self) -> str:
        """What judging the true probabilities of clicks depends on."""
        assert self.config.ctr is not None
        return canonical(_told(self.config.ctr.evaluation, AFTER_PREDICTIONS))

    def click_evaluation(self, noun: Noun) -> str:
        """What judging a click-through run depends on."""
        assert self.config.ctr is not None
        run = self.plan.click_runs[noun.name]
        reference = self.reference(run)
        cfg = {"run": _told(run), "evaluation": _told(self.config.ctr.evaluation, AFTER_PREDICTIONS)}
        return canonical(cfg | ({"reference": _told(reference)} if reference is not None else {}))

    def judging_modules(self, noun: Noun) -> list[str]:
        """Modules that judging a click-through run loads by name."""
        run = self.plan.click_runs[noun.name]
        return kind_modules(run, self.reference(run))
