"""What jobs will take: from earlier runs, in proportion to their work, else by the shipped rates."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.settings.config import load
from tessera.watch import costs
from tessera.watch.costs import Asked, Cost, Costs, begin, minutes, plan_lines, split_benchmark, together
from tessera.watch.line import Line

RATES = json.loads(costs.RATES.read_text())
RUN = "bazaar/id/sasrec/seed-1"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "machine_seconds", lambda: RATES["machine_seconds"])


def jobs(epochs: int = 10, users: int = 2000, **more: Any) -> Jobs:
    config = {
        "datasets": {"bazaar": {"source": "bazaar", "users": users}},
        "tables": {"text": {"recipe": "text", "model": "small"}},
        "systems": {"text": {"items": {"table": "text"}}},
        "training": {"epochs": epochs},
        "experiment": {"datasets": ["bazaar"], "systems": ["popular", "id", "text"], "seeds": [1, 2]},
    }
    return Jobs(Plan(load({**config, **more})))


def ran(rule: str, of: str, seconds: float, memory: float = 500.0, below: str = "results") -> None:
    file = Path(below, "benchmarks", rule, f"{of}.tsv")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{memory}\n")


def counted(dataset: str, interactions: int, items: int, below: str) -> None:
    stats = Path(below, dataset, "data/stats.json")
    stats.parent.mkdir(parents=True, exist_ok=True)
    stats.write_text(json.dumps({"counts": {"interactions": interactions, "items": items}}))


def estimated(made: Jobs) -> Costs:
    return Costs(made, Path("results"))


def test_a_job_that_ran_before_takes_as_long_again() -> None:
    ran("train", RUN, 21.5, 600.0)
    assert estimated(jobs()).cost("train", RUN) == Cost(21.5, 600.0, "before")


def test_twice_the_epochs_take_twice_as_long_but_for_the_start() -> None:
    made = jobs(epochs=20)
    ran("train", RUN, 21.5)
    description = Path(made.file(made.plan.nouns[-1].__class__("run", "id/sasrec/seed-1"), "bazaar", "model.json"))
    description.parent.mkdir(parents=True)
    description.write_text(json.dumps({"run": {"training": {"epochs": 10}}}))
    cost = estimated(made).cost("train", RUN)
    assert cost is not None
    assert cost.seconds == pytest.approx(1.5 + 2 * 20.0)


def test_systems_that_the_config_does_not_have_say_nothing() -> None:
    """Nobody knows how many epochs they trained for."""
    before = estimated(jobs()).cost("train", RUN)
    counted("other", 1_000, 100, "results/old")
    ran("train", "other/plain/sasrec/seed-1", 600.0, below="results/old")
    ran("train", "bazaar/gone/sasrec/seed-1", 600.0)
    assert estimated(jobs()).cost("train", RUN) == before is not None


def test_a_trial_takes_what_a_training_does() -> None:
    search = {"trials": 2, "space": {"training.learning_rate": {"low": 1e-3, "high": 1e-2}}, "systems": ["id"]}
    seconds = []
    for epochs in (10, 20):
        made = jobs(epochs=epochs, search=search)
        trial, training = (
            estimated(made).cost(*job) for job in (("trial", "bazaar/id/sasrec/trial-1"), ("train", RUN))
        )
        assert trial == training is not None
        assert trial is not None
        seconds.append(trial.seconds)
    assert seconds[1] > 1.5 * seconds[0]
    ran("trial", "bazaar/id/sasrec/trial-0", 30.0, 600.0)
    assert estimated(jobs(search=search)).cost("trial", "bazaar/id/sasrec/trial-1") == Cost(30.0, 600.0, "alike")


def test_what_is_made_of_runs_trains_nothing() -> None:
    """An ensemble takes as long whatever its members train."""
    both = {"recommender": "ensemble", "members": ["id/sasrec", "text"]}
    systems = {"text": {"items": {"table": "text"}}, "both": both}
    asked = {"datasets": ["bazaar"], "systems": ["id", "text", "both"], "backbones": ["sasrec"], "seeds": [1]}
    one, other = (jobs(epochs=epochs, systems=systems, experiment=asked) for epochs in (10, 20))
    costs = [estimated(made).cost("train", "bazaar/both/ensemble/seed-1") for made in (one, other)]
    assert costs[0] == costs[1] is not None
    trained = [estimated(made).cost("train", RUN) for made in (one, other)]
    assert costs[0] is not None
    assert trained[0] is not None
    assert costs[0].seconds < trained[0].seconds


def test_another_seed_says_it_before_another_system_does() -> None:
    ran("train", "bazaar/id/sasrec/seed-2", 30.0, 600.0)
    assert estimated(jobs()).cost("train", "bazaar/text/sasrec/seed-1") == Cost(30.0, 600.0, "alike")
    ran("train", "bazaar/text/sasrec/seed-2", 50.0, 700.0)
    assert estimated(jobs()).cost("train", "bazaar/text/sasrec/seed-1") == Cost(50.0, 700.0, "alike")
    assert estimated(jobs()).cost("train", RUN) == Cost(30.0, 600.0, "alike")


def test_the_last_of_two_experiments_counts() -> None:
    ran("prepare", "bazaar", 5.0, below="results/old")
    os.utime("results/old/benchmarks/prepare/bazaar.tsv", (1, 1))
    ran("prepare", "bazaar", 9.0, below="results/new")
    cost = estimated(jobs()).cost("prepare", "bazaar")
    assert cost is not None
    assert cost.origin == "rates", "nobody knows what they called bazaar"
    for name in ("old", "new"):
        counted("bazaar", 24_000, 1200, f"results/{name}")
    assert estimated(jobs()).cost("prepare", "bazaar") == Cost(9.0, 500.0, "before")
    counted("bazaar", 2_400, 120, "results/new")
    cost = estimated(jobs()).cost("prepare", "bazaar")
    assert cost is not None
    assert cost.seconds == pytest.approx(1.5 + 10 * 7.5)


def test_a_small_experiment_of_the_same_names_does_not_say_what_a_large_one_takes() -> None:
    counted("bazaar", 1_200, 60, "results/tiny")
    ran("train", RUN, 4.0, below="results/tiny")
    ran("pretrain", "bazaar/small", 6.0, below="results/tiny")
    origins = [estimated(jobs()).cost(rule, of) for rule, of in (("train", RUN), ("pretrain", "bazaar/small"))]
    assert [cost.origin for cost in origins if cost is not None] == ["rates", "rates"]
    description = Path("results/tiny/bazaar/runs/id/sasrec/seed-1/model.json")
    description.parent.mkdir(parents=True)
    description.write_text(json.dumps({"run": {"training": {"epochs": 2}}}))
    cost = estimated(jobs()).cost("train", RUN)
    assert cost is not None
    assert cost.origin == "before"
    assert cost.seconds > 1.5 + 2.5 * 20 * 5  # twenty times the targets, five times the epochs, more items


def test_what_was_too_short_to_be_measured_is_passed_over() -> None:
    ran("prepare", "bazaar", 1.0)
    Path("results/benchmarks/prepare/bazaar.tsv").write_text("s\th:m:s\tmax_rss\n0.2\t0:00:00\t-\n")
    cost = estimated(jobs()).cost("prepare", "bazaar")
    assert cost is not None
    assert cost.origin == "rates"


def test_shipped_rates_grow_with_the_data_and_the_epochs() -> None:
    def seconds(made: Jobs) -> float:
        cost = estimated(made).cost("train", RUN)
        assert cost is not None
        assert cost.origin == "rates"
        return cost.seconds

    small, long, large = seconds(jobs()), seconds(jobs(epochs=20)), seconds(jobs(users=20_000))
    start = RATES["rules"]["train"]["sasrec"]["start"]
    assert long - start == pytest.approx(2 * (small - start))
    assert large - start == pytest.approx(10 * (small - start))


@pytest.mark.parametrize(
    "of_search",
    [("ask", "bazaar/id/sasrec/round-1"), ("choose", "bazaar/id/sasrec"), ("trial", "bazaar/id/sasrec/trial-0")],
)
def test_a_search_leaves_nothing_unknown(of_search: tuple[str, str]) -> None:
    cost = estimated(jobs()).cost(*of_search)
    assert cost is not None
    assert cost.origin == "rates"


def test_a_slow_machine_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = estimated(jobs()).cost("train", RUN)
    monkeypatch.setattr(costs, "machine_seconds", lambda: 2 * RATES["machine_seconds"])
    slow = estimated(jobs()).cost("train", RUN)
    assert quick is not None
    assert slow is not None
    assert slow.seconds == pytest.approx(2 * quick.seconds)


def test_the_size_of_a_dataset_is_read_where_it_is_known() -> None:
    made = jobs()
    assert estimated(made).work.size("bazaar") == (24_000.0, 1200.0)
    stats = Path(made.pictures("bazaar")).parents[1] / "data/stats.json"
    stats.parent.mkdir(parents=True)
    stats.write_text(json.dumps({"counts": {"interactions": 500, "items": 40}}))
    assert estimated(made).work.size("bazaar") == (500.0, 40.0)


@pytest.mark.parametrize(
    ("layout", "line"),
    [("lines", "{user} 7 8 9 10 11\n"), ("lines_without_user", "7 8 9 10 11\n"), ("pairs", "{user} 7\n" * 5)],
)
def test_interactions_of_a_text_of_histories_are_counted_by_its_beginning(
    tmp_path: Path, layout: str, line: str
) -> None:
    (tmp_path / "log.txt").write_text("".join(line.format(user=user) for user in range(10_000, 50_000)))
    source = {"source": "sequences", "path": str(tmp_path / "log.txt"), "layout": layout}
    made = jobs(
        datasets={"bazaar": source}, experiment={"datasets": ["bazaar"], "systems": ["id"]}, systems={}, tables={}
    )
    size = estimated(made).work.size("bazaar")
    assert size is not None
    assert size[0] == pytest.approx(200_000, rel=0.01)


def test_a_target_costs_more_among_many_items() -> None:
    def seconds(items: int, **more: Any) -> float:
        made = jobs(datasets={"bazaar": {"source": "bazaar", "users": 2000, "items": items}}, **more)
        cost = estimated(made).cost("train", RUN)
        assert cost is not None
        return cost.seconds - float(RATES["rules"]["train"]["sasrec"]["start"])

    assert seconds(12_000) / seconds(3000) == pytest.approx((1 + 12_000 / 6000) / (1 + 3000 / 6000))
    sampled = {"loss": {"kind": "sampled_softmax"}}
    assert seconds(12_000, **sampled) == pytest.approx(seconds(3000, **sampled))


def test_nobody_guesses_how_long_a_foreign_model_takes(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    made = jobs(models={"small": {"folder": "model"}})
    known = estimated(made)
    assert known.cost("embed", "bazaar/text") is None
    assert known.cost("train", RUN) is not None
    ran("embed", "bazaar/text", 90.0)
    assert estimated(made).cost("embed", "bazaar/text") == Cost(90.0, 500.0, "before")


def test_every_rule_of_the_tables_and_pages_of_rankings_has_rates() -> None:
    known = estimated(jobs())
    for rule in ("generate", "prepare", "pretrain", "embed", "evaluate", "oracle", "tables", "report"):
        assert known.cost(rule, "bazaar" if rule != "embed" else "bazaar/text") is not None, rule
    assert known.cost("train_ctr", "bazaar/din/seed-1") is None


def test_jobs_share_cores_but_one_job_does_not() -> None:
    short, long = Cost(10.0, 100.0, "before"), Cost(100.0, 900.0, "rates")
    both = together([(short, 1)] * 6, 2)
    assert both.seconds == pytest.approx(6 * (10 + 0.5) / 2)
    assert together([(short, 1), (long, 1), (None, 1)], 8).seconds == 100.0
    estimate = together([(short, 1), (long, 1), (None, 1)], 8)
    assert (estimate.jobs, estimate.unknown, estimate.memory) == (3, 1, 900.0)
    assert estimate.sources == "1 ran here before, 1 by shipped rates, 1 not known"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2, "about 5 seconds"), (44, "about 45 seconds"), (360, "about 6 minutes"), (9000, "about 2.5 hours")],
)
def test_guessed_times_are_round(seconds: float, said: str) -> None:
    assert minutes(seconds) == said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("results/benchmarks/train/bazaar/id/sasrec/seed-1.tsv", ("train", RUN)),
        ("results/shop/benchmarks/report.tsv", ("report", "")),
        ("results/other/x.tsv", None),
    ],
)
def test_benchmark_files_say_what_they_are_of(path: str, said: tuple[str, str] | None) -> None:
    assert split_benchmark(path) == said


ASKED = [
    Asked("prepare", "prepare bazaar", "results/benchmarks/prepare/bazaar.tsv", 1),
    Asked("train", f"train {RUN}", f"results/benchmarks/train/{RUN}.tsv", 1),
    Asked("train_ctr", "train_ctr bazaar/x", "results/benchmarks/train_ctr/bazaar/x.tsv", 1),
    Asked("all", "all", "", 1),
]


def test_the_line_before_the_start_and_the_time_left() -> None:
    ran("train", RUN, 120.0)
    ran("prepare", "bazaar", 60.0)
    stream = io.StringIO()
    line = Line(stream)
    begin(line, estimated(jobs()), [*ASKED[:2], ASKED[3]], 1)
    assert stream.getvalue() == "3 jobs, about 3 minutes on 1 core (2 ran here before)\n"
    assert line.left() == pytest.approx(180.0)


def test_jobs_that_take_no_time_are_told_as_such() -> None:
    stream = io.StringIO()
    begin(Line(stream), estimated(jobs()), [ASKED[3]], 2)
    assert stream.getvalue() == "1 job, about no time\n"
    assert plan_lines(estimated(jobs()), [ASKED[3]], 2) == ["1 job, about no time"]
    assert plan_lines(estimated(jobs()), [ASKED[3], ASKED[3]], 2) == ["2 jobs, about no time"]


def test_a_single_job_is_one_job() -> None:
    ran("train", RUN, 120.0)
    stream = io.StringIO()
    begin(Line(stream), estimated(jobs()), [ASKED[1]], 2)
    begin(Line(stream), estimated(jobs()), [ASKED[2]], 2)
    assert stream.getvalue().splitlines() == [
        "1 job, about 2 minutes on 2 cores (1 ran here before)",
        "1 job on 2 cores; how long it takes is not known",
    ]
    assert plan_lines(estimated(jobs()), [ASKED[1]], 2)[-2].startswith("1 job, about 2 minutes on 2 cores, at most ")


def test_a_plan_has_a_row_a_rule_and_a_sum() -> None:
    ran("train", RUN, 120.0, 640.0)
    Path("model").write_bytes(b"x" * 3_000_000)
    asked = [ASKED[0], ASKED[1]._replace(outputs=("model",)), *ASKED[2:]]
    head, prepare, train, clicks, total, sources = plan_lines(estimated(jobs()), asked, 2)
    assert head.split() == ["rule", "jobs", "each", "together", "memory", "disk"]
    assert prepare.split()[:2] == ["prepare", "1"]
    assert train.split() == ["train", "1", "2", "min", "00", "s", "2", "min", "00", "s", "640", "MB", "3.0", "MB"]
    assert clicks.split() == ["train_ctr", "1", "not", "known"]
    assert total.startswith("4 jobs, about 2 minutes on 2 cores, at most 640 MB a job, ")
    assert sources == "jobs: 1 ran here before, 1 by shipped rates, 1 not known"
    assert plan_lines(estimated(jobs()), [], 2) == ["nothing to be done"]


def test_parts_of_captions_cost_as_much_as_the_whole() -> None:
    def made(number: int) -> Costs:
        counted("bazaar", 20_000, 1000, "results/experiment")
        captions = {"looks": {"model": "small", "jobs": number}}
        systems = {"text": {"items": {"table": "text"}}}
        table = {"text": {"recipe": "text", "model": "small", "captions": ["looks"]}}
        return estimated(jobs(captions=captions, tables=table, systems=systems))

    whole, divided = made(1), made(4)
    alone = whole.cost("caption", "bazaar/looks")
    parts = [divided.cost("caption_part", f"bazaar/looks-{number}") for number in range(4)]
    together_again = divided.cost("caption", "bazaar/looks")
    rate = RATES["rules"]["caption"][""]
    assert alone is not None
    assert together_again is not None
    assert together_again.seconds == rate["start"]
    assert all(part is not None and part.memory == rate["memory"] for part in parts)
    assert sum(part.seconds - rate["start"] for part in parts if part) == pytest.approx(alone.seconds - rate["start"])
    ran("caption_part", "bazaar/looks-0", 31.5, below="results/experiment")
    ran("caption", "bazaar/looks", 2.0, below="results/experiment")
    folder = Path(whole.work.jobs.file(Noun("captions", "looks"), "bazaar")).parent
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"part-{number}.json").write_text("{}")
    assert made(4).cost("caption_part", "bazaar/looks-3") == Cost(31.5, 500.0, "alike")
    halves = made(2).cost("caption_part", "bazaar/looks-1")
    assert halves is not None
    assert halves.seconds == pytest.approx(1.5 + 2 * 30.0), "twice the items"
    joined, one = made(4).cost("caption", "bazaar/looks"), made(1).cost("caption", "bazaar/looks")
    assert (joined and joined.origin, one and one.origin) == ("before", "rates"), "putting together says nothing of it"
