"""Keys that nothing reads beside the others are refused, with the reason: they would do nothing, without a word."""

from __future__ import annotations

from typing import Any

import pytest

from tessera.settings.base import ConfigError
from tessera.settings.config import load

TABLES = {
    "text": {"recipe": "text", "model": "small"},
    "image": {"recipe": "hidden", "model": "small", "source": "image"},
    "written": {"recipe": "interests", "model": "small"},
}
FINDREC, PAD = {"recommender": "findrec", "text": "text"}, {"recommender": "pad", "table": "text"}
EIMF: dict[str, Any] = {"recommender": "eimf"}
TPAD = {"recommender": "tpad", "text": "text"}
CIDER = {"recommender": "cider", "items": {"table": "text"}}


def config(system: dict[str, Any]) -> dict[str, Any]:
    experiment = {"datasets": ["shop"], "systems": ["mine"], "backbones": ["sasrec"], "seeds": [1]}
    return {
        "datasets": {"shop": {"source": "bazaar"}}, "tables": TABLES, "systems": {"mine": system},
        "experiment": experiment,
    }  # fmt: skip


def views(**keys: Any) -> dict[str, Any]:
    return {"items": {"kind": "dual_view", **keys}}


@pytest.mark.parametrize(
    ("system", "told"),
    [
        (CIDER | {"counterfactual": {"tau": 0.3, "grid": [0.1]}}, ["counterfactual.grid: is what tau is chosen from"]),
        (
            CIDER | {"counterfactual": {"keep": "last", "most": 5, "bins": 4}},
            ["counterfactual.most: is of shortcuts", "counterfactual.bins: is of shortcuts"],
        ),
        (CIDER | {"popularity": {"bins": 5}}, ["popularity.bins: is of adjustment bins, and logit has none"]),
        (CIDER | {"damage": {"rate": 0.5, "concentration": 2.0}}, ["damage.concentration: is of rates that are drawn"]),
        (
            CIDER | {"distillation": {"scores": 0.0, "temperature": 1.0}},
            ["distillation.temperature: is of scores that are compared, whose weight is 0"],
        ),
        (
            FINDREC | {"alignment": {"estimator": "mmd", "score": {"hidden": 8}}},
            ["alignment.score: is of estimator ksd, and mmd fits none"],
        ),
        (PAD | {"align": {"temperature": 0.2}}, ["align.temperature: is of kernel infonce, and gaussian_multi has"]),
        (PAD | {"align": {"kernel": "none", "weight": 0.2}}, ["align.weight: is of an alignment"]),
        (
            TPAD | {"disentangling": {"lower": 0.0, "temperature": 0.2, "upper": 0.0, "estimator": {"hidden": 8}}},
            [
                "disentangling.temperature: is of the lower bound, whose weight is 0",
                "disentangling.estimator: is of the upper bounds, whose weight is 0",
            ],
        ),
        (EIMF | {"iterations": 5}, ["iterations: is of network capsules, and the network is attention"]),
        (
            EIMF | {"prediction": {"weight": 0.2}, "typical": 8, "matching": None},
            [
                "prediction: is of written interests, and interests names no table",
                "typical: is of written interests, and interests names no table",
            ],
        ),
        (
            views(text="text", alignment={"weight": 0.2}, heads=4),
            [
                "items.alignment: brings `image` and `text` together, and one of them names no table",
                "items.heads: says how two views read each other, and tables give one",
            ],
        ),
    ],
)  # fmt: skip
def test_what_would_do_nothing_is_refused(system: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load(config(system), "mine.yaml")
    lines = str(refused.value).splitlines()
    assert len(lines) == len(told)
    for line, beginning in zip(lines, told, strict=True):
        assert line.startswith(f"mine.yaml: systems.mine.{beginning}")
        assert line.endswith("; leave it out")


@pytest.mark.parametrize(
    "system",
    [
        CIDER | {"counterfactual": {"keep": "last", "tau": 0.3}, "popularity": {"adjustment": "bins", "bins": 5}},
        CIDER
        | {"counterfactual": {"grid": [0.1], "most": 5}, "damage": {"rate": 0.5}, "distillation": {"scores": 0.0}},
        FINDREC | {"alignment": {"estimator": "mmd"}},
        PAD | {"align": {"kernel": "infonce", "temperature": 0.2}},
        PAD | {"align": {"kernel": "none"}, "preset": "official"},
        TPAD | {"disentangling": {"temperature": 0.2, "upper": 0.0}},
        EIMF | {"network": "capsules", "iterations": 5},
        EIMF | {"interests": "written", "typical": 8},
        # a row of keys that another varies: what it says is plain
        EIMF | {"iterations": 5, "network": "attention", "prediction": {"weight": 0.2}, "interests": None},
        EIMF | {"prediction": None},
        views(text="text"),
        views(text="text", image="image", alignment={"weight": 0.2}),
    ],
)
def test_what_is_read_is_taken(system: dict[str, Any]) -> None:
    load(config(system), "mine.yaml")


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"iterations": [2, 5]}, "space.systems.mine.iterations: 2: iterations: is of network capsules"),
        ({"iterations": [2, 5], "network": ["attention", "capsules"]}, ""),
    ],
)
def test_a_search_holds_what_some_trial_reads(space: dict[str, Any], told: str) -> None:
    searched = {"trials": 4, "space": {f"systems.mine.{key}": {"choices": values} for key, values in space.items()}}
    if not told:
        load(config(EIMF) | {"search": searched}, "mine.yaml")
        return
    with pytest.raises(ConfigError) as refused:
        load(config(EIMF) | {"search": searched}, "mine.yaml")
    assert str(refused.value).startswith(f"mine.yaml: search.{told}")
