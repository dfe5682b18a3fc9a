"""Edit one key, or one line, and exactly what depends on it runs again."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_project import Project

from tessera.settings.config import Config
from tessera.settings.datasets import DatasetSettings

pytestmark = pytest.mark.workflow

SHOWN = {"tables": 1, "report": 1}
JUDGED = {"evaluate": 15, "oracle": 1, **SHOWN}
# what reads items through a language model, and what reads it in turn
READ = {"caption": 1, "tune": 3, "embed": 3, "diagnose": 3, "train": 6, "evaluate": 6, **SHOWN}
PREPARED = {"prepare": 1, "table": 1, "pretrain": 1, **READ, "diagnose": 4, "train": 15, **JUDGED}
TRAINED = {"train": 12, "evaluate": 12, **SHOWN}
ONE_SYSTEM = {"train": 2, "evaluate": 2, **SHOWN}
REFINISHED = {"embed": 3, "diagnose": 3, "train": 6, "evaluate": 6, **SHOWN}
ONE_TABLE = {"embed": 1, "diagnose": 1, **ONE_SYSTEM}

CASES: list[tuple[str, Any, dict[str, int]]] = [
    ("datasets__bazaar__seed", 8, {"generate": 1, **PREPARED}),
    ("datasets__bazaar__cleaning__max_rejected", 0.2, {"generate": 1, **PREPARED}),
    ("datasets__bazaar__cleaning__max_history", 9, PREPARED),
    ("datasets__bazaar__split", {"kind": "global_temporal"}, PREPARED),
    ("datasets__bazaar__prompt__domain", "thing", {"pretrain": 1, **READ}),
    ("models__small__training__steps", 7, {"pretrain": 1, **READ}),
    ("captions__looks__max_new_tokens", 9, {"caption": 1, **ONE_TABLE, "tune": 2}),
    ("tables__latent__view", "text", {"table": 1, "diagnose": 1, **ONE_SYSTEM}),
    ("tables__text__pooling", "last", ONE_TABLE),
    ("tables__llmemb__pca", 7, ONE_TABLE),
    ("tables__llmemb__drop", 0.3, {"tune": 1, **ONE_TABLE}),
    ("tables__lrcl__drop", 0.3, {"tune": 2, **ONE_TABLE}),
    ("tables__reaemb__noise_std", 0.2, {"tune": 1, **ONE_TABLE}),
    ("systems__latent__items__adapter", [16], ONE_SYSTEM),
    ("systems__llmemb__items__align__weight", 0.1, ONE_SYSTEM),
    ("systems__item_knn", {"recommender": "item_knn", "neighbours": 5}, {"train": 1, "evaluate": 1, **SHOWN}),
    ("backbones__gru4rec__hidden_dim", 8, ONE_SYSTEM),
    ("preset", "official", {"tune": 3, "embed": 2, "diagnose": 2, **TRAINED}),
    ("loss", {"kind": "bce"}, TRAINED),
    ("training__learning_rate", 0.01, TRAINED),
    ("evaluation__cutoffs", [5, 10], JUDGED),
    ("evaluation__candidates", {"kind": "sampled", "negatives": 9}, {"candidates": 1, "rulegraph": 1, **JUDGED}),
    ("significance__level", 0.1, SHOWN),
    ("report__title", "Another title", {"report": 1}),
    ("resources__train__mem_mb", 700, {}),
    ("resources__tune__mem_mb", 700, {}),
    ("experiment__seeds", [1, 2, 3], {"train": 6, "evaluate": 6, **SHOWN}),
    ("experiment__backbones", ["sasrec"], SHOWN),
    ("experiment__systems", ["id", "popular", "item_knn", "markov", "latent", "text", "llmemb", "reaemb"], SHOWN),
]


def test_every_section_has_a_case() -> None:
    edited = {path.split("__")[0] for path, _, _ in CASES}
    assert edited == set(Config.model_fields)
    parts = {path.split("__")[2] for path, _, _ in CASES if path.startswith("datasets")}
    assert parts >= set(DatasetSettings.model_fields)


@pytest.mark.parametrize(("path", "value", "expected"), CASES, ids=[path for path, _, _ in CASES])
def test_settings(finished: Project, path: str, value: Any, expected: dict[str, int]) -> None:
    # an edit of what is run shows in the page, which shows the config; an edit of resources shows nowhere
    config = finished.write_config(finished.config(**{path: value}))
    # the default of significance.baseline must stay a run of the experiment
    assert finished.stale(config) == expected


def test_the_order_of_keys_is_nothing(finished: Project) -> None:
    config = dict(reversed(finished.config().items()))
    config["backbones"] = dict(reversed(config["backbones"].items()))
    assert finished.stale(finished.write_config(config)) == {}


LIBRARY = "src/tessera"
CODE = [
    (f"{LIBRARY}/reporting/plots.py", "\n# a comment\n", {}),
    (f"{LIBRARY}/recommenders/backbones/gru4rec.py", "\n# a comment\n", {}),
    (f"{LIBRARY}/settings/reporting.py", "\n_MORE = 1\n", {"report": 1}),
    (f"{LIBRARY}/reporting/plots.py", "\n_MORE = 1\n", {"report": 1}),
    (f"{LIBRARY}/recommenders/backbones/gru4rec.py", "\n_MORE = 1\n", ONE_SYSTEM),
    (f"{LIBRARY}/recommenders/item_encoders/table.py", "\n_MORE = 1\n", {"train": 8, "evaluate": 8, **SHOWN}),
    (f"{LIBRARY}/recommenders/backbones/markov.py", "\n_MORE = 1\n", {"train": 1, "evaluate": 1, **SHOWN}),
    (f"{LIBRARY}/embedding/embed.py", "\n_MORE = 1\n", REFINISHED),
    (f"{LIBRARY}/embedding/crrl.py", "\n_MORE = 1\n", {"tune": 1, **ONE_TABLE}),
    (f"{LIBRARY}/embedding/finish.py", "\n_MORE = 1\n", REFINISHED),
    (f"{LIBRARY}/language/pretrain.py", "\n_MORE = 1\n", {"pretrain": 1, **READ}),
    (f"{LIBRARY}/evaluation/representations.py", "\n_MORE = 1\n", {"diagnose": 4, "report": 1}),
    (f"{LIBRARY}/data/prepare.py", "\n_MORE = 1\n", PREPARED),
]


@pytest.mark.parametrize(
    ("path", "more", "expected"), CODE, ids=[f"{path.split('/')[-1]}{more.split()[0]}" for path, more, _ in CODE]
)
def test_code(finished: Project, path: str, more: str, expected: dict[str, int]) -> None:
    with finished.edited(path, lambda text: text + more):
        assert finished.stale() == expected
