"""Trials of a search: the same for all, prefix by prefix, within their ranges; and what a plan makes of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from tessera.plan import required
from tessera.plan.first_lines import check_first_lines
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.required import check_files
from tessera.plan.search import searched, trial_run, values
from tessera.settings.base import ConfigError
from tessera.settings.changes import with_values
from tessera.settings.config import load

SPACE: dict[str, Any] = {
    "training.learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True},
    "backbones.sasrec.dropout": {"low": 0.0, "high": 0.5},
    "systems.mine.loss.negatives": {"choices": [1, 4]},
}


SPACE_OF_ALL = {"training.learning_rate": SPACE["training.learning_rate"]}


def plan(experiment: dict[str, Any] | None = None, **search: Any) -> Plan:
    config: dict[str, Any] = {
        "datasets": {"shop": {"source": "bazaar"}},
        "tables": {"text": {"recipe": "latent", "view": "text"}},
        "systems": {
            "mine": {"items": "ids", "loss": {"kind": "bce"}, "training": {"learning_rate": 0.5}},
            "pad": {"recommender": "pad", "table": "text"}, "eimf": {"recommender": "eimf"},
        },
        "search": {"trials": 8, "space": SPACE, **search},
        "experiment": {"datasets": ["shop"], "systems": ["popular", "id", "mine"], "backbones": ["sasrec", "gru4rec"],
                       "final": "id/sasrec", **(experiment or {})},
    }  # fmt: skip
    return Plan(load(config))


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_trials_fill_their_ranges_and_do_not_depend_on_how_many_there_are(sampler: str) -> None:
    made = plan(sampler=sampler, trials=300)
    assert made.config.search is not None
    run = searched(made)["mine/sasrec"]
    trials = [values(made.config.search, run, number) for number in range(256)]
    fewer = plan(sampler=sampler, trials=5)
    assert fewer.config.search is not None
    assert [values(fewer.config.search, run, number) for number in range(5)] == trials[:5]
    rates = np.log10([trial["training.learning_rate"] for trial in trials])
    drops = np.array([trial["backbones.sasrec.dropout"] for trial in trials])
    for column, low, high in ((rates, -4, -2), (drops, 0, 0.5)):
        assert low <= column.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < column.max() <= high
        assert np.mean(column) == pytest.approx((low + high) / 2, abs=0.06 * (high - low))
    shares = Counter(trial["systems.mine.loss.negatives"] for trial in trials)
    assert min(shares.values()) > 100


def test_whole_numbers_have_equal_shares() -> None:
    made = plan(space={"backbones.sasrec.layers": {"low": 1, "high": 4}, "training.epochs": {"low": 2, "high": 3}})
    assert made.config.search is not None
    run = searched(made)["id/sasrec"]
    drawn = Counter(values(made.config.search, run, number)["backbones.sasrec.layers"] for number in range(256))
    assert drawn == dict.fromkeys((1, 2, 3, 4), 64)


def test_every_row_has_as_many_trials_of_what_it_reads() -> None:
    made = plan()
    jobs = Jobs(made)
    assert list(searched(made)) == ["id/sasrec", "id/gru4rec", "mine/sasrec", "mine/gru4rec"]
    assert {len(jobs.search.trials("shop", name)) for name in searched(made)} == {8}
    assert trial_run(made, "id/gru4rec", 3).chosen.keys() == {"training.learning_rate"}
    assert trial_run(made, "id/sasrec", 3).chosen.keys() == {"training.learning_rate", "backbones.sasrec.dropout"}
    run = trial_run(made, "mine/sasrec", 3)
    assert run.training.learning_rate == run.chosen["training.learning_rate"] != 0.5
    assert run.backbone is not None
    assert run.backbone.dropout == run.chosen["backbones.sasrec.dropout"]
    assert run.loss.negatives == run.chosen["systems.mine.loss.negatives"]


def compared(*systems: str, backbones: Sequence[str] = ("sasrec",), **space: Any) -> Plan:
    return plan({"systems": [*systems], "backbones": [*backbones]}, trials=4, space=space)


def test_each_path_changes_what_is_trained() -> None:
    space = {
        "training.learning_rate": {"low": 0.1, "high": 0.2}, "systems.mine.training.learning_rate": {"choices": [7, 8]},
        "backbones.sasrec.training.patience": {"choices": [70, 80]}, "systems.mine.loss.negatives": {"choices": [5, 6]},
        "systems.pad.align.weight": {"choices": [0.5, 0.6]}, "loss.cold_items": {"choices": ["left_out", "negatives"]},
    }  # fmt: skip
    made = compared("id", "mine", "pad", **space)
    for trial in range(4):
        mine = trial_run(made, "mine/sasrec", trial)
        assert mine.training.learning_rate == mine.chosen["systems.mine.training.learning_rate"] >= 7
        assert mine.training.patience == mine.chosen["backbones.sasrec.training.patience"] >= 70
        assert mine.loss.negatives == mine.chosen["systems.mine.loss.negatives"] >= 5
        assert "loss.cold_items" not in mine.chosen  # it has a loss of its own
        pad = trial_run(made, "pad/sasrec", trial)
        assert pad.method.align.weight == pad.chosen["systems.pad.align.weight"]
        assert pad.loss.cold_items == pad.chosen["loss.cold_items"]
        assert pad.training.learning_rate == pad.chosen["training.learning_rate"] < 7
        for run in (mine, pad):
            assert with_values(run, run.chosen) == run


def test_a_network_with_a_loss_of_its_own_reads_what_it_takes_of_the_common_one() -> None:
    made = compared("id", "eimf", **{"loss.cold_items": {"choices": ["left_out", "negatives"]}})
    trials = [trial_run(made, "eimf/eimf", trial) for trial in range(4)]
    assert {run.loss.cold_items for run in trials} == {"left_out", "negatives"}
    assert all(run.loss.cold_items == run.chosen["loss.cold_items"] for run in trials)


def test_every_kind_of_system_under_backbones_is_searched_under_each() -> None:
    backbones = ("sasrec", "gru4rec")
    space = {f"backbones.{name}.dropout": {"low": 0.1, "high": 0.5} for name in backbones}
    made = compared("id", "pad", backbones=backbones, **space)
    assert list(searched(made)) == ["id/sasrec", "id/gru4rec", "pad/sasrec", "pad/gru4rec"]
    for name in searched(made):
        run = trial_run(made, name, 1)
        assert run.backbone is not None
        assert [run.backbone.dropout] == list(run.chosen.values())


def test_final_trainings_read_what_was_chosen_and_their_own_settings_stay() -> None:
    made = plan()
    jobs = Jobs(made)
    best = jobs.search.search_file("shop", "id/sasrec")
    assert jobs.search.chosen(Noun("run", "id/sasrec/seed-2"), "shop") == {"chosen": best}
    assert jobs.search.chosen(Noun("run", "id/sasrec/seed-1"), "shop-final") == {"chosen": best}
    assert jobs.search.chosen(Noun("run", "popular/popular/seed-0"), "shop") == {}
    other = Jobs(plan(trials=9))
    for name in made.trained:
        noun = Noun("run", name)
        assert jobs.settings(noun, "shop") == other.settings(noun, "shop")
    assert jobs.search.trial("id/sasrec", 3, "shop") == other.search.trial("id/sasrec", 3, "shop")
    assert "test" not in str(jobs.inputs(jobs.search.searched_run("id/sasrec"), "shop"))


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_later_rounds_are_asked_for_from_all_trials_before_them(sampler: str) -> None:
    made = plan(sampler=sampler, round=3)
    jobs, sobol = Jobs(made), Jobs(plan())
    name = "id/sasrec"
    for trial in range(3):  # those of the first round are as they are without learning
        assert jobs.search.asked("shop", name, trial) == {}
        assert jobs.search.trial(name, trial, "shop") == sobol.search.trial(name, trial, "shop")
    for trial, number in ((3, 1), (5, 1), (6, 2), (7, 2)):
        assert jobs.search.asked("shop", name, trial) == {
            "asked": jobs.search.search_file("shop", name, f"round-{number}.json")
        }
        assert trial_run(made, name, trial).chosen == {}
    assert jobs.search.rounds_before("shop", name, 2) == jobs.search.trials("shop", name)[:6]
    # neither the number of trials nor what other rows search changes what is asked
    space = {path: dimension for path, dimension in SPACE.items() if not path.startswith("systems")}
    other = Jobs(plan(sampler=sampler, round=3, trials=9, space=space))
    assert other.search.asking(name) == jobs.search.asking(name)
    assert other.search.asking("mine/sasrec") != jobs.search.asking("mine/sasrec")
    assert Jobs(plan(sampler=sampler, round=3, seed=1)).search.asking(name) != jobs.search.asking(name)
    assert "test" not in str(jobs.inputs(jobs.search.searched_run(name), "shop")) + jobs.search.asking(name)


def test_a_learning_sampler_is_refused_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    real = required.find_spec
    monkeypatch.setattr(required, "find_spec", lambda name: None if name == "optuna" else real(name))
    check_files(plan(), "my.yaml")
    with pytest.raises(ConfigError) as caught:
        check_files(plan(sampler="tpe"), "my.yaml")
    assert str(caught.value) == (
        "my.yaml: search.sampler: tpe needs the package optuna, which is not installed; "
        "pip install -e '.[optuna]' -c constraints.txt, or sampler: sobol"
    )


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            {"backbones.sasrec.dim": {"choices": [16, 10]}, "backbones.sasrec.heads": {"choices": [1, 4]}},
            r"of id/sasrec \(backbones.sasrec.dim: 10, backbones.sasrec.heads: 4\): heads: 4 does not divide",
        ),
        (
            {"systems.found.width": {"choices": [36, 64]}, "systems.found.heads": {"choices": [2, 8]}},
            r"of found/sasrec \(systems.found.heads: 8, systems.found.width: 36\): .*8 does not divide width",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_told_before_anything_runs(space: dict[str, Any], said: str) -> None:
    config = {
        "datasets": {"shop": {"source": "bazaar"}},
        "tables": {"text": {"recipe": "latent", "view": "text"}, "seen": {"recipe": "latent", "view": "image"}},
        "systems": {"found": {"recommender": "findrec", "text": "text", "image": "seen"}},
        "search": {"trials": 12, "space": space, "systems": ["found" if "systems.found.width" in space else "id"]},
        "experiment": {"datasets": ["shop"], "systems": ["id", "found"], "backbones": ["sasrec"]},
    }
    with pytest.raises(ConfigError, match=said):
        check_first_lines(Plan(load(config)), "my.yaml")
    if find_spec("optuna"):  # what it will ask for nobody knows
        config["search"] |= {"sampler": "tpe", "round": 1}
        with pytest.raises(ConfigError, match=said):
            check_first_lines(Plan(load(config)), "my.yaml")
    config["search"]["space"] = {path: {"choices": d["choices"][::-1]} for path, d in [*space.items()][:1]}
    check_first_lines(Plan(load(config)), "my.yaml")


NEIGHBOURS = {"systems.item_knn.neighbours": {"low": 10, "high": 200}}


def with_neighbours(search: dict[str, Any], **evaluation: Any) -> Plan:
    config = {
        "datasets": {"shop": {"source": "bazaar"}},
        "search": {"trials": 8, **search},
        "training": {"validation_users": 50},
        "evaluation": evaluation,
        "experiment": {"datasets": ["shop"], "systems": ["popular", "item_knn", "markov", "id"]},
    }
    return Plan(load(config))


def test_heuristics_that_the_space_names_get_as_many_trials() -> None:
    made = with_neighbours({"space": SPACE_OF_ALL | NEIGHBOURS}, mask_seen=False)
    jobs = Jobs(made)
    assert [*searched(made)] == ["item_knn/item_knn", "id/sasrec"]
    assert {len(jobs.search.trials("shop", name)) for name in searched(made)} == {8}
    run = trial_run(made, "item_knn/item_knn", 3)
    assert run.chosen.keys() == NEIGHBOURS.keys()
    assert run.method.neighbours == run.chosen["systems.item_knn.neighbours"]
    # judged on what trained systems are judged on
    other = trial_run(made, "id/sasrec", 3)
    assert (run.mask_seen, run.training.validation_users) == (other.mask_seen, 50) == (False, 50)
    best = jobs.search.search_file("shop", "item_knn/item_knn")
    assert jobs.search.chosen(Noun("run", "item_knn/item_knn/seed-0"), "shop") == {"chosen": best}
    assert jobs.search.chosen(Noun("run", "markov/markov/seed-0"), "shop") == {}
    told = {name: json.loads(jobs.evaluation(Noun("run", name)))["run"]["remarks"] for name in made.trained}
    assert told["item_knn/item_knn/seed-0"] == ["settings chosen on validation among 8 quasi-random trials"]
    assert told["markov/markov/seed-0"] == told["popular/popular/seed-0"] == []
    assert json.loads(jobs.comparison.table("shop"))["remarks"] == {
        "markov/markov": "settings not searched, where others had 8 trials"
    }
    # a search of others leaves it as it is
    alone = Jobs(with_neighbours({"space": SPACE_OF_ALL}))
    knn = Noun("run", "item_knn/item_knn/seed-0")
    assert alone.search.chosen(knn, "shop") == {}
    assert alone.settings(knn, "shop") == jobs.settings(knn, "shop")


def test_a_heuristic_that_is_named_needs_a_path() -> None:
    assert [*searched(with_neighbours({"space": NEIGHBOURS, "systems": ["item_knn"]}))] == ["item_knn/item_knn"]
    with pytest.raises(ConfigError, match="space: holds nothing of 'item_knn'"):
        with_neighbours({"space": SPACE_OF_ALL, "systems": ["item_knn", "id"]})
    with pytest.raises(ConfigError, match="did you mean 'neighbours'"):
        with_neighbours({"space": {"systems.item_knn.neighbour": {"low": 1, "high": 2}}, "systems": ["item_knn"]})


def test_the_budget_is_a_remark() -> None:
    jobs = Jobs(plan(systems=["mine"]))

    def remarks(run: str) -> list[str]:
        told: list[str] = json.loads(jobs.evaluation(Noun("run", run)))["run"]["remarks"]
        return told

    assert remarks("mine/sasrec/seed-1") == ["settings chosen on validation among 8 quasi-random trials"]
    # the table says it of the others: a search judges nothing of them again
    assert remarks("id/sasrec/seed-1") == remarks("popular/popular/seed-0") == []
    bare = Jobs(Plan(plan().config.model_copy(update={"search": None})))
    run = Noun("run", "id/sasrec/seed-1")
    assert jobs.evaluation(run) == bare.evaluation(run)
    beside = json.loads(jobs.comparison.table("shop"))["remarks"]
    said = "settings not searched, where others had 8 trials"
    assert beside == {"id/sasrec": said, "id/gru4rec": said}
    assert "remarks" not in json.loads(bare.comparison.table("shop"))


def test_values_go_before_what_a_system_says_of_itself_and_can_be_put_in_twice() -> None:
    run = next(run for run in plan().runs if run.system == "mine")
    changed = with_values(run, {"training.learning_rate": 0.25, "systems.mine.loss.negatives": 4})
    assert changed.training.learning_rate == 0.25
    assert with_values(changed, changed.chosen) == changed
    with pytest.raises(ValueError, match="unknown key 'learning_rat'; did you mean 'learning_rate'"):
        with_values(run, {"training.learning_rat": 0.25})


@pytest.mark.parametrize(
    ("search", "told"),
    [
        (
            {"space": {"training.learning_rat": {"low": 0.1, "high": 0.2}}},
            "search.space.training.learning_rat: unknown",
        ),
        ({"space": {"trainin.epochs": {"low": 1, "high": 2}}}, "unknown beginning 'trainin'; did you mean 'training'"),
        ({"space": {"backbones.sasre.dim": {"choices": [1, 2]}}}, "did you mean 'sasrec'"),
        ({"space": {"backbones.sasrec.dropout": {"low": 0.0, "high": 1.5}}}, "1.5: expected less than 1"),
        ({"space": {"training.schedule": {"choices": ["linear", "cosin"]}}}, "'cosin': expected 'constant'"),
        ({"space": {"training.epochs": {"low": 9, "high": 2}}}, "low .9. must be less than high"),
        ({"space": {"backbones.sasrec.dropout": {"low": 0.0, "high": 0.5, "log": True}}}, "must be above 0"),
        ({"space": {"backbones.gru4rec.dropout": {"low": 0.0, "high": 0.5}}}, "holds nothing of 'id/sasrec'"),
        ({"space": {"training.patience": {"choices": [3]}}}, "at least 2"),
        ({"space": {"training.patience": {"choices": [3, 3]}}}, "holds 3 twice"),
        ({"systems": []}, "search.systems"),
        ({"systems": ["id", "id"]}, "search.systems: names something twice"),
        (
            {"space": SPACE | {"backbones.bert4rec.dropout": {"low": 0.0, "high": 0.5}}},
            "search.space.backbones.bert4rec.dropout: no system that is searched reads it; leave it out",
        ),
        ({"space": {"training.warm_start": {"choices": ["a", "b"]}}}, "'warm_start' is the same for all trials"),
        ({"space": {"systems.mine.training.processes": {"choices": [1, 2]}}}, "'processes' is the same for all trials"),
        ({"space": {"systems.mine.seeds": {"choices": [[1], [2]]}}}, "'seeds' is the same for all trials"),
        ({"space": {"systems.mine.training.patienc": {"low": 1, "high": 2}}}, "did you mean 'patience'"),
        ({"space": {"backbones.sasrec.dim": {"low": 16, "high": 64}}}, "17: heads: 2 does not divide dim 17"),
        ({"space": {"training.validation_users": {"low": 5, "high": 99}}}, "'validation_users' is the same for all"),
        ({"systems": ["popular"]}, "search.systems.0: 'popular' is no system of the experiment that has settings"),
        ({"trails": 3}, "did you mean 'trials'"),
    ],
)
def test_what_cannot_be_searched_is_refused(search: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan(**search)
