"""What the jobs get that compare runs: metric tables, claims, missing modalities, and the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tessera.artifacts.places import CORRUPTED, REPORT
from tessera.plan.graph import Noun
from tessera.plan.params import Files, canonical, part_of
from tessera.plan.search import unsearched
from tessera.plan.truth import knows_the_truth
from tessera.settings.references import ONE_ROW

if TYPE_CHECKING:
    from tessera.plan.jobs import Jobs

AFTER_RANKS = (
    "cold_targets", "cutoffs", "head_share", "history_bins", "popularity_bins", "recommendations", "shift",
)  # fmt: skip
"""Keys of the judge that are read when ranks are there."""


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


class ComparisonJobs:
    """Files and settings of tables, claims, and the report."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.plan, self.config, self.root = jobs, jobs.plan, jobs.config, jobs.root

    @property
    def task(self) -> Task:
        """What this config's table and page are of."""
        return CLICKS if self.config.task == "ctr" else RANKING

    def shifts(self, dataset: str) -> Files:
        """The test sets of a dataset that differ from training, as a named input; none where none is asked for."""
        asked = self.task is RANKING and self.config.evaluation.shift
        return {"shifts": f"{self.root}/{dataset}/data/shifts.parquet"} if asked else {}

    def judged(self, dataset: str) -> list[str]:
        """Names of the runs that are judged on a dataset, the oracle's last where the truth is known."""
        if self.task is CLICKS:
            return [*self.plan.click_runs, *["oracle/seed-0"] * self.plan.lifelong(dataset)]
        return [*(run.path for run in self.plan.runs), *["oracle/oracle/seed-0"] * self.plan.judged_by_truth(dataset)]

    def judgements(self, dataset: str) -> Files:
        """Metrics of every judged run, and what each of its test cases got, as named inputs."""
        runs = [Noun(self.task.run, name) for name in self.judged(dataset)]
        files = {"runs": "metrics.json", "cases": self.task.cases}
        return {key: [self.jobs.file(run, dataset, file) for run in runs] for key, file in files.items()}

    def table_file(self, dataset: str, ending: str) -> str:
        """A metric table."""
        return f"{self.root}/tables/{dataset}{self.task.suffix}.{ending}"

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
            return {"evaluation": part_of(config.ctr.evaluation)}
        return {
            "order": self._order(dataset),
            "evaluation": part_of(config.evaluation, without),
            "significance": part_of(config.significance),
        }

    def _order(self, dataset: str) -> list[str]:
        """The rows of a metric table, as `system/recommender`."""
        return list(dict.fromkeys(path.rpartition("/")[0] for path in self.judged(dataset)))

    def claims_file(self, dataset: str, ending: str) -> str:
        """The claims of the config, tested on a dataset."""
        return self.table_file(f"{dataset}-claims", ending)

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

    def corruption(self, noun: Noun) -> str:
        """What judging a run at missing rates depends on: of the judge, what ranks are told by."""
        run = self.plan.trained[noun.name]
        parts = {"run": part_of(run, ["remarks"]), "evaluation": part_of(self.config.evaluation, AFTER_RANKS)}
        robustness = self.config.robustness
        return canonical(
            parts
            | ({"robustness": part_of(robustness)} if robustness is not None else {})
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
        return [self.jobs.file(Noun("run", path), dataset, CORRUPTED) for path in reading]

    def robustness_inputs(self, dataset: str) -> Files:
        """Judgements, and the ranks at missing rates, as named inputs; whoever reads nothing that is lost has none."""
        return {**self.judgements(dataset), "corrupted": self.corrupted(dataset)}

    def robustness_file(self, dataset: str, ending: str) -> str:
        """The table of metrics at missing rates."""
        return self.table_file(f"{dataset}-robustness", ending)

    def robustness(self, dataset: str) -> str:
        """What that table depends on besides the ranks."""
        robustness = self.config.robustness
        shown = {"robustness": part_of(robustness)} if robustness is not None else {}
        bounds = sorted(knows_the_truth(self.plan))
        return canonical({"dataset": dataset, "bounds": bounds, **shown, **self._judged_by(dataset, ["shift"])})

    @property
    def page(self) -> str:
        """The report."""
        return f"{self.root}/{REPORT}"

    def shown(self) -> Files:
        """What the page reads, as named inputs."""
        datasets = self.config.experiment.datasets
        runs = [self.judgements(dataset) for dataset in datasets]
        data = ("items", "interactions", *self.task.data)

        def every(kind: str, name: str = "") -> list[str]:
            return [
                self.jobs.file(Noun(kind, one), dataset, name) for dataset in datasets for one in self.plan.needed(kind)
            ]

        files: Files = {
            "tables": [self.table_file(dataset, "parquet") for dataset in datasets],
            "data": [f"{self.root}/{dataset}/data/{name}.parquet" for dataset in datasets for name in data],
            "judgements": [path for named in runs for paths in named.values() for path in paths],
            "histories": self._histories(),
            "codes": every("semantic_ids"),
            "health": every("semantic_ids", "health.json"),
            "pictures": [self.jobs.pictures(dataset) for dataset in datasets],
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
            "searches": self.jobs.search.searches(),
            "captions": every("captions"),
            "embedders": every("embedder", "history.jsonl"),
        }

    def _histories(self) -> list[str]:
        """The training curve of every run that the page shows."""
        names = self.plan.click_runs if self.task is CLICKS else [run.path for run in self.plan.runs]
        runs = [Noun(self.task.run, name) for name in names]
        return [self.jobs.file(run, d, "history.jsonl") for d in self.config.experiment.datasets for run in runs]

    def diagnosed(self) -> list[str]:
        """Item tables with one row an item, which can be judged before a recommender learns from them."""
        return [name for name in self.plan.needed("table") if ONE_ROW in self.config.tables[name].offers()]

    def mapped(self) -> list[str]:
        """Item tables that a map is drawn of: those that are judged, where the report has maps at all."""
        return self.diagnosed() if self.config.report.map else []

    def codes_of(self, table: str, dataset: str) -> Files:
        """The semantic IDs of the experiment that are made of a table, as a named input."""
        nouns = [Noun("semantic_ids", name) for name in self.plan.needed("semantic_ids")]
        made = [self.jobs.file(noun, dataset) for noun in nouns if Noun("table", table) in self.plan.reads(noun)]
        return {"codes": made} if made else {}

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
            "report": part_of(self.config.report),
            "runs": {dataset: self.judged(dataset) for dataset in self.config.experiment.datasets},
            "datasets": self.config.experiment.datasets,
            "config": shown,
        }
        return canonical(settings)
