"""What jobs will take: by the benchmark files of earlier runs here, else by rates that were measured once.

A benchmark file is `.../benchmarks/<rule>/<what it is of>.tsv`, as Snakemake writes it. A job that ran before is
thought to take as long again, in proportion to its work: targets times epochs, rows of a step times steps, items or
interactions. Of one that never ran, another of its kind says it; where none did, the shipped rates (`rates.json`) do,
in proportion to this machine's speed. What runs on a model whose size nobody knows is not guessed.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tessera.artifacts.logs import duration
from tessera.artifacts.places import RESULTS, place
from tessera.artifacts.run_folder import DESCRIPTION
from tessera.data.downloads import is_url
from tessera.data.files import find
from tessera.plan.graph import Noun
from tessera.plan.jobs import Jobs
from tessera.settings.runs import Run
from tessera.settings.training import Steps, Training
from tessera.watch.line import Job, Line

RATES = Path(__file__).with_name("rates.json")
_ROW_BYTES = 50
"""Of a row of a log, where nothing else tells how many rows a file has."""
_ROWS_AN_ITEM = 15
"""Interactions an item, where nothing else tells how many items there are."""
_CATALOGUE = 6000
"""Items at which the scores of a whole catalogue cost a training step as much as everything else."""
_STOPS = 0.5
"""Share of the epochs that training has gone through when early stopping ends it, mostly."""
_START = 1.5
"""Seconds that a job takes whatever its work: Python, imports, files."""

_BETWEEN = 0.5
"""Seconds between two jobs on a core: choosing the next, checking what the last one wrote."""

Origin = Literal["before", "alike", "rates"]


@dataclass(frozen=True)
class Cost:
    """What a job takes."""

    seconds: float
    memory: float | None
    """Most that it holds, in MB."""
    origin: Origin
    """Whether it ran here before, another of its kind did, or the shipped rates say so."""


@dataclass(frozen=True)
class Ran:
    """A job that ran."""

    rule: str
    of: str
    """What it is of: `bazaar/id/sasrec/seed-1`."""
    seconds: float
    memory: float
    folder: Path = Path()
    """Of the experiment's results."""


def split_benchmark(path: str | Path) -> tuple[str, str] | None:
    """Rule and what a job is of, by the path of its benchmark file."""
    parts = Path(path).with_suffix("").parts
    if "benchmarks" not in parts or parts[-1] == "benchmarks":
        return None
    rule, *of = parts[len(parts) - parts[::-1].index("benchmarks") :]
    return rule, "/".join(of)


def ran_before(folder: Path) -> list[Ran]:
    """Every job below a folder of results whose benchmark file can be read, the oldest first."""
    ran: list[tuple[float, Ran]] = []
    for top in [*folder.glob("benchmarks"), *folder.glob("*/benchmarks")]:
        for file in top.rglob("*.tsv"):
            with suppress(OSError, ValueError, KeyError):  # "-" where a job was too short to be measured
                named, lines = split_benchmark(file), file.read_text(encoding="utf-8").splitlines()
                if named is None or len(lines) < 2:
                    continue
                row = dict(zip(lines[0].split("\t"), lines[-1].split("\t"), strict=False))
                ran.append((file.stat().st_mtime, Ran(*named, float(row["s"]), float(row["max_rss"]), top.parent)))
    return [one for _, one in sorted(ran, key=lambda pair: pair[0])]


class Work:
    """How much a job has to do, in a unit of its rule's own, and which others are like it."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.config = jobs, jobs.config
        self._sizes: dict[str, tuple[float, float] | None] = {}

    def size(self, dataset: str) -> tuple[float, float] | None:
        """Interactions and items of a dataset; None where nobody knows yet."""
        if dataset not in self._sizes:
            self._sizes[dataset] = self._size(dataset) if dataset in self.config.datasets else None
        return self._sizes[dataset]

    def _size(self, dataset: str) -> tuple[float, float] | None:
        if (counted := _counts(Path(self.jobs.pictures(dataset)).parents[1])) is not None:
            return counted
        settings = self.config.datasets[dataset]
        if (mean := getattr(settings, "mean_history", None)) is not None:
            lifelong = getattr(settings, "lifelong", None)
            each = getattr(lifelong, "mean_history", mean) if lifelong is not None else mean
            return float(settings.users * each), float(settings.items)  # type: ignore[attr-defined]
        path = getattr(settings, "path", None)
        if path is None or is_url(path):
            return None
        with suppress(OSError):
            file = find(path)
            files = [file] if file.is_file() else [one for one in file.rglob("*") if one.is_file()]
            size, layout = sum(one.stat().st_size for one in files), getattr(settings, "layout", None)
            each = 1 / _ROW_BYTES if layout is None else _rows_a_byte(files[0], layout)
            rows = max(1.0, size * each)
            return rows, max(1.0, rows / _ROWS_AN_ITEM)
        return None

    def kind(self, rule: str, of: str) -> str:
        """What jobs of a rule must share so that one says what another takes: the recommender, the recipe ..."""
        name = of.partition("/")[2]
        if rule in ("train", "trial", "evaluate", "corrupt", "recommend", "export"):
            return name.split("/")[1] if "/" in name else name
        if rule in ("train_ctr", "evaluate_ctr"):
            run = self.jobs.plan.click_runs.get(name)
            return run.model.model if run is not None else name.split("/")[0]
        if rule in ("tune", "embed", "table") and name in self.config.tables:
            return self.config.tables[name].recipe
        if rule == "quantize" and name in self.config.semantic_ids:
            return self.config.semantic_ids[name].quantizer
        return ""

    def as_measured(self, rule: str, of: str) -> tuple[str, str]:
        """The rule and the name under which a job's rate is known: a part of captions is as the captions."""
        if rule != "caption_part":
            return rule, of
        return "caption", of.rpartition("-")[0]

    def _parts(self, rule: str, name: str) -> int:
        """How many jobs divide the items of a captioning among them."""
        captions = self.config.captions.get(name) if rule in ("caption", "caption_part") else None
        return captions.jobs if captions is not None else 1

    def _parts_before(self, ran: Ran) -> int:
        """Among how many jobs the items of a captioning were divided when a job of it ran."""
        dataset, _, name = self.as_measured(ran.rule, ran.of)[1].partition("/")
        there = Path(self.jobs.root) if ran.folder == Path(RESULTS) else ran.folder
        return max(1, len([*Path(there, dataset, place("captions", name)).parent.glob("part-*.json")]))

    def known(self, rule: str, of: str) -> bool:
        """Whether the size of the language model is known, where the job reads one."""
        whole, of = self.as_measured(rule, of)
        name = of.partition("/")[2]
        if whole == rule and self._parts(rule, name) > 1:
            return True  # it puts parts together
        rule = whole
        kinds = {"caption": "captions", "tune": "embedder", "embed": "table"}
        kinds |= dict.fromkeys(("train", "trial", "evaluate", "corrupt"), "run")
        if rule == "trial" and (run := self._run(rule, name)) is not None:
            name = run.path
        if rule not in kinds:
            return True
        try:
            reads = self.jobs.plan.reads(Noun(kinds[rule], name))
        except KeyError:
            return True
        return all(self.jobs.plan.built(read.name) for read in reads if read.kind == "model")

    def amount(self, rule: str, of: str) -> float | None:
        """How much there is to do; None where nobody knows."""
        return self._amount(rule, of, self.size(of.partition("/")[0]))

    def _amount(self, rule: str, of: str, sizes: tuple[float, float] | None) -> float | None:
        name = of.partition("/")[2]
        if rule in ("report", "tables", "robustness", "ask", "choose"):
            return 1.0
        if sizes is None:
            return None
        rows, items = sizes
        if rule == "caption_part":
            return items / self._parts(rule, name.rpartition("-")[0])
        if rule == "caption" and self._parts(rule, name) > 1:
            return 0.0
        if rule == "corrupt" and (robustness := self.config.robustness) is not None:
            return rows * len(robustness.curves) * len(robustness.rates)
        training = self.training(rule, name)
        if isinstance(training, Steps):
            return float(training.steps * training.batch)
        if isinstance(training, Training):
            return rows * training.epochs * self._of_items(rule, name, items)
        by_item = ("caption", "embed", "table", "diagnose", "atlas", "quantize", "health", "export")
        return items if rule in by_item else rows

    def _of_items(self, rule: str, name: str, items: float) -> float:
        """How much a larger catalogue adds to the cost of a target: where a loss scores all items."""
        run = self._run(rule, name)
        wide = run is not None and run.backbone is not None and run.loss.ALL_ITEMS
        return 1 + items / _CATALOGUE if wide else 1.0

    def _run(self, rule: str, name: str) -> Run | None:
        """The run that a job trains; a trial of a search, which may change its epochs, that of the first seed."""
        if rule == "trial":
            row = name.rpartition("/")[0]
            return next((run for run in self.jobs.plan.runs if run.row == row), None)
        return self.jobs.plan.trained.get(name) if rule == "train" else None

    @cached_property
    def _sections(self) -> dict[str, Mapping[str, Any]]:
        """What is trained besides recommenders, by rule and name."""
        return {
            "train_ctr": self.jobs.plan.click_runs, "tune": self.config.tables, "pretrain": self.config.models,
            "quantize": self.config.semantic_ids,
        }  # fmt: skip

    def training(self, rule: str, name: str) -> Training | Steps | None:
        """The settings by which a job trains."""
        if rule in ("train", "trial"):
            run = self._run(rule, name)
            return None if run is None or run.heuristic or run.members else run.training
        settings = self._sections.get(rule, {}).get(name)
        training = getattr(settings, "training", None)
        return training if isinstance(training, (Training, Steps)) else None

    def _planned(self, rule: str, name: str) -> bool:
        """Whether the config still says how a job trains; of other rules it need not."""
        if rule in ("train", "trial"):
            return self._run(rule, name) is not None
        return rule not in self._sections or name in self._sections[rule]

    def comparable(self, ran: Ran) -> bool:
        """Whether a job says what another takes: it is of this experiment, or its work is known."""
        name = ran.of.partition("/")[2]
        if not self._planned(ran.rule, name):
            return False
        # what puts parts together says nothing of what makes a whole, and the other way round
        if ran.rule == "caption" and (self._parts_before(ran) > 1) != (self._parts("caption", name) > 1):
            return False
        return ran.folder in (Path(RESULTS), Path(self.jobs.root)) or self.amount_before(ran) is not None

    def amount_before(self, ran: Ran) -> float | None:
        """How much there was to do when a job ran, by what it wrote; None where that is not known.

        Of this experiment's jobs that is else as much as now. Of those of another experiment, which may call other data
        and other settings by the same names, nobody knows.
        """
        dataset, _, name = ran.of.partition("/")
        own = ran.folder in (Path(RESULTS), Path(self.jobs.root))
        there = Path(self.jobs.root) if own else ran.folder
        sizes = self.size(dataset) if own else _counts(there / dataset)
        if not self._planned(ran.rule, name):
            return None
        if ran.rule == "caption_part" and sizes is not None:
            return sizes[1] / self._parts_before(ran)
        if self.training(ran.rule, name) is None:
            return self._amount(ran.rule, ran.of, sizes)
        if ran.rule == "train" and sizes is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                file = there / dataset / place("run", name, DESCRIPTION)
                training = json.loads(file.read_text(encoding="utf-8"))["run"]["training"]
                return sizes[0] * float(training["epochs"]) * self._of_items(ran.rule, name, sizes[1])
        if ran.rule == "tune" and name in self.config.tables:
            with suppress(OSError, ValueError, KeyError, TypeError):
                file = there / dataset / place("embedder", name, DESCRIPTION)
                training = json.loads(file.read_text(encoding="utf-8"))["settings"]["training"]
                return float(training["steps"] * training["batch"])
        return self.amount(ran.rule, ran.of) if own else None


def _counts(dataset: Path) -> tuple[float, float] | None:
    """Interactions and items of a prepared dataset in its folder of results; None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        counts = json.loads((dataset / "data/stats.json").read_text(encoding="utf-8"))["counts"]
        return float(counts["interactions"]), float(counts["items"])
    return None


class Costs:
    """What the jobs of a plan will take."""

    def __init__(self, jobs: Jobs, results: Path, rates: Path = RATES) -> None:
        """
        Args:
            jobs: of the plan.
            results: below which benchmark files of earlier runs are looked for.
            rates: what is shipped.
        """
        self.work = Work(jobs)
        self.before: dict[tuple[str, str], Ran] = {}
        self._alike: dict[tuple[str, str], list[Ran]] = {}
        for ran in ran_before(results):
            if self.work.comparable(ran):
                self.before[ran.rule, ran.of] = ran
        for ran in self.before.values():
            self._alike.setdefault((ran.rule, self.work.kind(ran.rule, ran.of)), []).append(ran)
        self._rates_file = rates

    @cached_property
    def rates(self) -> dict[str, Any]:
        """The shipped rates, by rule and kind."""
        shipped: dict[str, Any] = json.loads(self._rates_file.read_text(encoding="utf-8"))
        return shipped

    @cached_property
    def slowness(self) -> float:
        """Seconds here that stand for a second of the machine on which the rates were measured."""
        return machine_seconds() / float(self.rates["machine_seconds"])

    def cost(self, rule: str, of: str) -> Cost | None:
        """What a job will take; None where nobody can say."""
        if (same := self.before.get((rule, of))) is not None:
            return Cost(self._scaled(same, rule, of), same.memory, "before")
        kind = self.work.kind(rule, of)
        if alike := self._alike.get((rule, kind)):
            # of the same system first, whatever the seed
            named = [ran for ran in alike if ran.of.rpartition("/")[0] == of.rpartition("/")[0]] or alike
            seconds = statistics.median(self._scaled(ran, rule, of) for ran in named)
            return Cost(seconds, max(ran.memory for ran in named), "alike")
        return self._by_rates(rule, of, kind)

    def disk(self, rule: str, of: str, outputs: Iterable[str]) -> float | None:
        """MB that a job leaves: what it left before, else by the shipped rates; None where nobody can say."""
        there = [path for path in map(Path, outputs) if path.exists()]
        if there:
            return sum(map(_bytes, there)) / 1e6
        rate, sizes = self.rates["disk"].get(rule), self.work.size(of.partition("/")[0])
        if rate is None or (sizes is None and any(rate[1:])):
            return None
        rows, items = sizes or (0.0, 0.0)
        return float(rate[0]) + (float(rate[1]) * rows + float(rate[2]) * items) / 1e6

    def _scaled(self, ran: Ran, rule: str, of: str) -> float:
        then, now = self.work.amount_before(ran), self.work.amount(rule, of)
        if not then or not now:
            return ran.seconds
        start = min(_START, ran.seconds)
        return start + (ran.seconds - start) * now / then

    def _by_rates(self, rule: str, of: str, kind: str) -> Cost | None:
        measured = self.work.as_measured(rule, of)[0]
        shipped = self.rates["rules"].get("train" if measured == "trial" else measured)
        if shipped is None:
            return None
        rate = shipped.get(kind) or shipped.get("")
        if rate is None:
            # something of a kind that nobody measured: as the others of its rule, in the middle
            ordered = sorted(shipped.values(), key=lambda one: float(one["each"]))
            rate = ordered[len(ordered) // 2]
        amount = self.work.amount(rule, of)
        if amount is None or not self.work.known(rule, of):
            return None
        stops = _STOPS if isinstance(self.work.training(rule, of.partition("/")[2]), Training) else 1.0
        seconds = float(rate["start"]) + float(rate["each"]) * amount * stops
        return Cost(seconds * self.slowness, float(rate["memory"]), "rates")


def _rows_a_byte(file: Path, layout: str) -> float:
    """Interactions a byte of a text of histories, by its beginning; see `layout` of `source: sequences`."""
    with file.open("rb") as opened:
        sample = opened.read(1 << 16)
    lines, words = sample.count(b"\n"), len(sample.split())
    rows = {"lines": words - lines, "lines_without_user": words}.get(layout, lines)
    return rows / max(1, len(sample))


def _bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def machine_seconds() -> float:
    """Processor seconds that a fixed piece of plain Python takes here, the best of a few: 0.1 s in all."""
    taken: list[float] = []
    for _ in range(3):
        started = time.thread_time()
        total = 0
        for number in range(400_000):
            total += number * number % 7
        taken.append(time.thread_time() - started)
    return min(taken)


# ---------------------------------------------------------------- of several jobs


@dataclass(frozen=True)
class Estimate:
    """What some jobs will take together."""

    jobs: int
    seconds: float
    """On the cores that they have."""
    memory: float
    """Most that one job holds, in MB."""
    unknown: int
    """Jobs of which nobody can say it."""
    origins: dict[str, int]
    """How many were estimated from what."""

    @property
    def sources(self) -> str:
        """Where the numbers come from."""
        names = {"before": "ran here before", "alike": "like others that ran here", "rates": "by shipped rates"}
        parts = [f"{count} {names[origin]}" for origin, count in self.origins.items() if count]
        return ", ".join([*parts, *[f"{self.unknown} not known"] * bool(self.unknown)])


def together(costs: Iterable[tuple[Cost | None, int]], cores: int) -> Estimate:
    """What jobs take together.

    Args:
        costs: of each job, with the threads that it computes in.
        cores: that they share.
    """
    every = list(costs)
    known = [(cost, threads) for cost, threads in every if cost is not None]
    work = sum((cost.seconds + _BETWEEN) * min(threads, cores) for cost, threads in known)
    longest = max((cost.seconds for cost, _ in known), default=0.0)
    origins = {origin: sum(cost.origin == origin for cost, _ in known) for origin in ("before", "alike", "rates")}
    memory = max((cost.memory or 0.0 for cost, _ in known), default=0.0)
    return Estimate(len(every), max(work / cores, longest), memory, len(every) - len(known), origins)


def minutes(seconds: float) -> str:
    """A time that was guessed: `about 40 seconds`, `about 6 minutes`, `about 3 hours`."""
    if seconds < 90:
        return f"about {max(5, round(seconds / 5) * 5)} seconds"
    if seconds < 5400:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


class Asked(NamedTuple):
    """A job that is to run, as the workflow knows it."""

    rule: str
    name: str
    """As `job_name` of `watch/line.py` says it."""
    benchmark: str
    """The path of its benchmark file; empty where it has none: what takes no time."""
    threads: int
    outputs: tuple[str, ...] = ()


def cost_of(costs: Costs, job: Asked) -> Cost | None:
    """What a job will take; one without a benchmark file takes nothing."""
    named = split_benchmark(job.benchmark) if job.benchmark else None
    return Cost(0.0, None, "rates") if named is None else costs.cost(*named)


def begin(line: Line, costs: Costs, jobs: Sequence[Asked], cores: int) -> None:
    """Say how long a run will take, and let the line tell the time left by it."""
    known = [cost_of(costs, job) for job in jobs]
    estimate = together([(cost, job.threads) for cost, job in zip(known, jobs, strict=True) if job.benchmark], cores)
    line.expect(
        [
            Job(job.name, job.rule, max(1, job.threads), cost.seconds if cost is not None else None)
            for job, cost in zip(jobs, known, strict=True)
        ],
        cores,
    )
    count, on = _counted(len(jobs), "job"), f"on {_counted(cores, 'core')}"
    if not estimate.jobs:
        line.say(f"{count}, about no time")
    elif estimate.unknown == estimate.jobs:
        line.say(f"{count} {on}; how long {'it takes' if len(jobs) == 1 else 'they take'} is not known")
    else:
        line.say(f"{count}, {minutes(estimate.seconds)} {on} ({estimate.sources})")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def plan_lines(costs: Costs, jobs: Sequence[Asked], cores: int) -> list[str]:
    """Jobs by rule, with what each and all of them will take: a table and its sum."""
    if not jobs:
        return ["nothing to be done"]
    if not any(job.benchmark for job in jobs):
        return [f"{_counted(len(jobs), 'job')}, about no time"]
    lines = [f"{'rule':<16}{'jobs':>6}{'each':>14}{'together':>14}{'memory':>11}{'disk':>11}"]
    every: list[tuple[Cost | None, int]] = []
    disk = 0.0
    for rule in dict.fromkeys(job.rule for job in jobs if job.benchmark):
        of_rule = [job for job in jobs if job.rule == rule]
        costed = [(cost_of(costs, job), max(1, job.threads)) for job in of_rule]
        every += costed
        known = [cost for cost, _ in costed if cost is not None]
        sizes = [costs.disk(*(split_benchmark(job.benchmark) or ("", "")), job.outputs) for job in of_rule]
        sized = [size for size in sizes if size is not None]
        disk += sum(sized)
        seconds = sum(cost.seconds for cost in known)
        memory = max((cost.memory or 0.0 for cost in known), default=0.0)
        shown = (
            [duration(seconds / len(known)), duration(seconds), f"{memory:,.0f} MB"] if known else ["not known", "", ""]
        )
        shown.append(f"{sum(sized):,.1f} MB" if sized else "")
        lines.append(f"{rule:<16}{len(of_rule):>6}{shown[0]:>14}{shown[1]:>14}{shown[2]:>11}{shown[3]:>11}".rstrip())
    estimate = together(every, cores)
    took = "how long is not known" if estimate.unknown == estimate.jobs else minutes(estimate.seconds)
    counts = f"{_counted(len(jobs), 'job')}, {took} on {_counted(cores, 'core')}"
    lines.append(f"{counts}, at most {estimate.memory:,.0f} MB a job, {disk:,.0f} MB on disk")
    lines.append(f"jobs: {estimate.sources}")
    return lines
