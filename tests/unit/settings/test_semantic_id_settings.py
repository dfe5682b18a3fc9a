"""Semantic IDs in a config: what cannot work is refused before anything runs, with the path and the nearest name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from changing import with_key

from tessera.plan.graph import Plan
from tessera.settings.base import ConfigError
from tessera.settings.config import load

GOOD: dict[str, Any] = {
    "datasets": {"bazaar": {"source": "bazaar"}},
    "tables": {"who": {"recipe": "collaborative"}, "text": {"recipe": "text", "model": "small"}},
    "semantic_ids": {
        "plain": {"quantizer": "rq_kmeans", "tables": "text"},
        "views": {"quantizer": "mm_rq_vae", "tables": ["who", "text"]},
    },
    "systems": {
        "tiger": {"recommender": "tiger", "semantic_ids": "plain"},
        "mme_sid": {"recommender": "mme_sid", "semantic_ids": "views", "model": "small"},
    },
    "experiment": {"datasets": ["bazaar"], "systems": ["id", "tiger", "mme_sid"]},
}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "systems.tiger.semantic_ids",
            "plane",
            "tiger.semantic_ids: unknown name 'plane'; did you mean 'plain'",
        ),
        ("systems.tiger.semantic_ids", "views", "'views' has codes a table; one sequence of codes is read here"),
        ("systems.mme_sid.semantic_ids", "plain", "'plain' is not made by mm_rq_vae"),
        ("systems.mme_sid.tables", ["txt"], "tables.0: 'txt' is none of the tables of 'views'; did you mean 'text'"),
        ("systems.mme_sid.tables", [], "tables is empty: an item would have nothing to tell"),
        ("systems.mme_sid.model", "smal", "systems.mme_sid.model: unknown name 'smal'; did you mean 'small'"),
        ("semantic_ids.plain.tables", "txt", "semantic_ids.plain.tables.0: unknown name 'txt'; did you mean 'text'"),
        ("semantic_ids.plain.codes", "8", "semantic_ids.plain.codes: expected a whole number (got '8')"),
        ("semantic_ids.plain.codes", [8, 8], "is not a number above 1 for each of 3 levels"),
    ],
)
def test_what_cannot_work_is_refused(path: str, value: Any, said: str) -> None:
    load(copy.deepcopy(GOOD))
    with pytest.raises(ConfigError) as caught:
        load(with_key(GOOD, path, value))
    assert said in str(caught.value)


@pytest.mark.parametrize("quantizer", ["rq_vae", "mm_rq_vae"])
def test_a_seed_of_codebooks_that_start_random_is_refused(quantizer: str) -> None:
    config = copy.deepcopy(GOOD)
    config["semantic_ids"]["more"] = {"quantizer": quantizer, "tables": "text", "start": "random"}
    load(copy.deepcopy(config))
    config["semantic_ids"]["more"]["seed"] = 2
    with pytest.raises(ConfigError, match=r"semantic_ids\.more\.seed: is read with `start: kmeans` alone"):
        load(copy.deepcopy(config))
    config["semantic_ids"]["more"]["start"] = "kmeans"
    load(config)


def test_an_item_must_tell_something() -> None:
    config = with_key(GOOD, "systems.mme_sid.raw", False)
    load(copy.deepcopy(config))
    config["systems"]["mme_sid"]["codes"] = False
    with pytest.raises(ConfigError, match="raw and codes are both false"):
        load(config)


def test_the_preset_covers_the_quantiser_and_is_said() -> None:
    config = load(with_key(GOOD, "preset", "official"))
    views = config.semantic_ids["views"]
    own = (views.mse, views.align_direction, views.commitment, views.first_weights)  # type: ignore[union-attr]
    assert own == (0.0, "first", 0.01, "random")
    assert config.semantic_ids["plain"] == load(copy.deepcopy(GOOD)).semantic_ids["plain"]
    remarks = {run.system: run.remarks for run in Plan(config).runs}
    assert "codes views were made under preset official" in remarks["mme_sid"]
    assert not any("codes" in remark for remark in remarks["tiger"])
