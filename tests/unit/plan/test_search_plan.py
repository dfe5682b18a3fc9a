"""Trials of a search: the same for all, prefix by prefix, within their ranges; and what a plan makes of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.search import searched, trial_run, values
from tessera.settings.base import ConfigError
from tessera.settings.changes import with_values
from tessera.settings.config import load

SPACE: dict[str, Any] = {
    "training.learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True},
    "backbones.sasrec.dropout": {"low": 0.0, "high": 0.5},
    "systems.mine.loss.negatives": {"choices": [1, 4]},
}


def plan(**search: Any) -> Plan:
    config = {
        "datasets": {"shop": {"source": "bazaar"}},
        "systems": {"mine": {"items": "ids", "loss": {"kind": "bce"}, "training": {"learning_rate": 0.5}}},
        "search": {"trials": 8, "space": SPACE, **search},
        "experiment": {"datasets": ["shop"], "systems": ["popular", "id", "mine"], "backbones": ["sasrec", "gru4rec"],
                       "final": "id/sasrec"},
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
    assert {len(jobs.trials("shop", name)) for name in searched(made)} == {8}
    assert trial_run(made, "id/gru4rec", 3).chosen.keys() == {"training.learning_rate"}
    assert trial_run(made, "id/sasrec", 3).chosen.keys() == {"training.learning_rate", "backbones.sasrec.dropout"}
    run = trial_run(made, "mine/sasrec", 3)
    assert run.training.learning_rate == run.chosen["training.learning_rate"] != 0.5
    assert run.backbone is not None
    assert run.backbone.dropout == run.chosen["backbones.sasrec.dropout"]
    assert run.method.loss.negatives == run.chosen["systems.mine.loss.negatives"]


def test_final_trainings_read_what_was_chosen_and_their_own_settings_stay() -> None:
    made = plan()
    jobs = Jobs(made)
    best = jobs.search_file("shop", "id/sasrec")
    assert jobs.chosen(Noun("run", "id/sasrec/seed-2"), "shop") == {"chosen": best}
    assert jobs.chosen(Noun("run", "id/sasrec/seed-1"), "shop-final") == {"chosen": best}
    assert jobs.chosen(Noun("run", "popular/popular/seed-0"), "shop") == {}
    other = Jobs(plan(trials=9))
    for name in made.trained:
        noun = Noun("run", name)
        assert jobs.settings(noun, "shop") == other.settings(noun, "shop")
    assert jobs.trial("id/sasrec", 3) == other.trial("id/sasrec", 3)
    assert "test" not in str(jobs.inputs(jobs.searched_run("id/sasrec"), "shop"))


def test_the_budget_is_a_remark() -> None:
    jobs = Jobs(plan(systems=["mine"]))

    def remarks(run: str) -> list[str]:
        told: list[str] = json.loads(jobs.evaluation(Noun("run", run)))["run"]["remarks"]
        return told

    assert remarks("mine/sasrec/seed-1") == ["settings chosen on validation among 8 quasi-random trials"]
    assert remarks("id/sasrec/seed-1") == ["settings not searched, where others had 8 trials"]
    assert remarks("popular/popular/seed-0") == []


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
        ({"space": {"backbones.sasrec.dropout": {"low": 0.0, "high": 1.5}}}, "1.5: Input should be less than 1"),
        ({"space": {"training.schedule": {"choices": ["linear", "cosin"]}}}, "'cosin': Input should be"),
        ({"space": {"training.epochs": {"low": 9, "high": 2}}}, "low .9. must be less than high"),
        ({"space": {"backbones.sasrec.dropout": {"low": 0.0, "high": 0.5, "log": True}}}, "must be above 0"),
        ({"space": {"backbones.gru4rec.dropout": {"low": 0.0, "high": 0.5}}}, "holds nothing of 'id/sasrec'"),
        ({"space": {"training.patience": {"choices": [3]}}}, "at least 2"),
        ({"systems": ["popular"]}, "search.systems.0: 'popular' is no trained system"),
        ({"trails": 3}, "did you mean 'trials'"),
    ],
)
def test_what_cannot_be_searched_is_refused(search: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan(**search)
