"""The `ctr` section: what is refused, and which runs follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.settings.base import ConfigError
from tessera.settings.config import Config, load

TINY = Path(__file__).resolve().parents[3] / "config/ctr-tiny.yaml"


def tiny(**changes: Any) -> Any:
    config = yaml.safe_load(TINY.read_text())
    for path, value in changes.items():
        *outer, last = path.split("__")
        part = config
        for key in outer:
            part = part[key]
        part[last] = value
    if changes.get("ctr__reference", "din") is None and "ctr__evaluation" not in changes:
        config["ctr"]["evaluation"].pop("recall_samples")  # there is nothing to compare with
    return config


def test_runs_are_models_times_seeds() -> None:
    config = load(tiny())
    names = ["din", "din_long", "sim_hard", "r2led"]
    assert [*Plan(config).click_runs] == [f"{name}/seed-{seed}" for name in names for seed in (1, 2)]
    assert [run.semantic_ids for run in Plan(config).click_runs.values()] == [False] * 6 + [True] * 2
    assert Plan(config).runs == []
    assert config.ctr is not None
    assert config.ctr.against == "din"


def test_a_model_may_have_seeds_of_its_own() -> None:
    """The other runs stay what they were, and so do its own."""
    before = Plan(load(tiny())).click_runs
    changed = tiny()
    changed["ctr"]["models"]["din"]["seeds"] = [2, 3]
    after = Plan(load(changed)).click_runs
    assert [path for path in after if path not in before] == ["din/seed-3"]
    assert [path for path in before if path not in after] == ["din/seed-1"]
    assert all(after[path] == before[path] for path in before if path in after)


def test_a_sequential_config_has_no_click_through_runs() -> None:
    config: Config = load(yaml.safe_load((TINY.parent / "tiny.yaml").read_text()))
    assert Plan(config).click_runs == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"epochs": 5}}, "training: click models do not read it: theirs is ctr.training; leave it out"),
        ({"significance": {"baseline": "x"}}, "significance: click models do not read it: theirs are ctr.baseline"),
        ({"evaluation": {"cutoffs": [5]}}, "evaluation: click models do not read it: theirs is ctr.evaluation"),
        ({"loss": {"kind": "bpr"}}, "loss: click models do not read it: theirs is binary cross-entropy"),
        ({"missing": {"image": 0.5}}, "missing: click models do not read it; leave it out"),
        ({"report": {"main_metric": "MRR"}}, "report.main_metric: the tables of click models are led by AUC"),
        ({"ctr__models__r2led__index": False}, "ctr.models.r2led.index"),
        (
            {"ctr__samples": {"source": "positives", "split": {"past": 0.6}}},
            "ctr.samples.source: the log of 'lifelong' tells what was not clicked, too; take impressions",
        ),
        (
            {"ctr__samples": {"source": "ratings", "threshold": 1.0}},
            "ctr.samples.split.past: 0.0, but the log of 'lifelong' tells what was not clicked in its last 0.5 alone",
        ),
        (
            {"ctr__models": {"a": {"model": "lemur", "contrastive": 0.0, "session_mask": False}}},
            "ctr.models.a.session_mask: is of the contrastive loss, whose weight is 0; leave it out",
        ),
        (
            {"ctr__models": {"a": {"model": "lemur", "long": 0, "recent": 0, "decoder_layers": 1}}},
            "ctr.models.a.decoder_layers: is of sequences, and neither long nor recent reads any; leave it out",
        ),
        ({"ctr__models": {"a": {"model": "avg", "combine": "sum"}}}, "ctr.models.a.combine: is of semantic IDs"),
        (
            {"ctr__reference": None, "ctr__evaluation": {"recall_samples": 40}},
            "ctr.evaluation.recall_samples: compares retrieval with `reference`, which names no model; leave it out "
            "(got 40)",
        ),
        *(
            ({"ctr__models__r2led": {"model": "r2led", **keys}}, f"ctr.models.r2led.{key}: {why}")
            for keys, key, why in (
                ({"alpha": 0.3}, "alpha", "is of scores that are summed, and mixing quota sums none"),
                ({"views": "semantic", "mixing": "fuse"}, "mixing", "is of both scores, and views semantic has one"),
                ({"views": "semantic", "bits": 8}, "bits", "is of hash codes"),
                ({"mixing": "fuse", "matches_only": False}, "matches_only", "is of the half of the events"),
                ({"views": "collaborative", "matches_only": False}, "matches_only", "is of the semantic score"),
                ({"routes": ["target"], "recent": 3}, "recent", "is of the route recent, which routes does not name"),
                ({"routes": ["target"], "fusion": "mean"}, "fusion", "is of several routes, and there is one"),
                ({"routes": ["levels"], "level_weights": [1.0, 2.0]}, "level_weights", "weighs levels in one score"),
                ({"gate": "none", "code_dim": 4}, "code_dim", "is of vectors of semantic IDs, which gate none"),
                ({"gate": "levels", "combine": "sum"}, "combine", "is of one vector for all levels"),
                ({"short": 0, "attention_hidden": [4]}, "attention_hidden", "is of the last events, and short reads"),
            )
        ),
        (
            {"ctr__models__r2led": {"model": "r2led", "views": "collaborative", "routes": ["target", "levels"]}},
            "ctr.models.r2led.routes: levels are of codes, which views collaborative does without",
        ),
        (
            {"ctr__models": {"a": {"model": "lemur", "regime": "frozen", "ranker_gradient": False}}},
            "ctr.models.a.ranker_gradient: is of encoders that learn beside the ranker",
        ),
        (
            {"ctr__evaluation": {"requests": 0, "candidates": 20}},
            "ctr.evaluation.candidates: is of requests, and requests: 0 makes none; leave it out",
        ),
        ({"ctr__content": {"picture": None, "patch": 4}}, "ctr.content.patch: is of pictures, and picture: null"),
        ({"ctr__models": {"a": {"model": "avg"}}}, "ctr.semantic_ids: none of the models reads codes; leave it out"),
        ({"recommend": {"k": 5}}, "recommend: click models do not read it; leave it out"),
        (
            {"datasets__lifelong__cleaning": {"core": {"on": "train"}}, "datasets__lifelong__split": {"kind": "given"}},
            "datasets.lifelong.cleaning.core.on: 'train' goes by the dataset's split",
        ),
        ({"ctr__content": {"max_tokens": 8}}, "ctr.content: none of the models reads texts and pictures"),
        ({"ctr__samples__seed": 3}, "ctr.samples.seed: unknown key 'seed'"),
        (
            {"ctr__models__din_long__seeds": [1]},
            "ctr.models.din_long.seeds: 'sim_hard' has seed 2, and ctr.reference, 'din_long', with which",
        ),
        (
            {"ctr__models__r2led__seeds": [7]},
            "ctr.models.r2led.seeds: 'r2led' has seed 7, and ctr.reference, 'din_long', with which",
        ),
        (
            {"datasets__lifelong__split": {"kind": "global_temporal"}},
            "datasets.lifelong.split: drops rows that ctr.samples.split, which cuts for click models, needs",
        ),
        ({"datasets__lifelong__cleaning": {"core": None, "repeats": "last"}}, "datasets.lifelong.cleaning.repeats"),
        ({"datasets__lifelong__cleaning": {"core": None, "max_history": 9}}, "say ctr.samples.max_history"),
        ({"datasets__lifelong__cleaning": {"core": None, "repeats": "first"}}, "'first' keeps an item's first view"),
        ({"datasets__lifelong__oracle_users": 5}, "datasets.lifelong.oracle_users: 5, but the truth is asked of every"),
        ({"ctr__samples__split__by": "position"}, "ctr.samples.split.by: the log of 'lifelong' tells from a moment on"),
        ({"ctr": None}, "ctr: task 'ctr' needs this section"),
        ({"task": "sequential"}, "datasets.lifelong.lifelong: its log holds impressions that nobody clicked"),
        ({"task": "click"}, "task: 'click' is not one of the choices"),
        ({"ctr__models__din__seeds": [1, 1]}, "ctr.models.din.seeds: names something twice: [1, 1]"),
        ({"ctr__models__din__seeds": []}, "ctr.models.din.seeds"),
        ({"ctr__baseline": "dim"}, "ctr.baseline: unknown name 'dim'; did you mean 'din'"),
        ({"ctr__reference": "din"}, "ctr.reference: 'din' sees its window alone; give it `window: null`"),
        (
            {"ctr__samples__split__past": 0.4},
            "ctr.samples.split.past: 0.4, but the log of 'lifelong' tells what was not clicked in its last 0.5 alone; "
            "expected 0.5 or more",
        ),
        ({"ctr__reference": "sim_hard"}, "ctr.reference: 'sim_hard' has no attention over histories; choose a din"),
        ({"ctr__semantic_ids": None}, "ctr.models.r2led: r2led reads semantic IDs, but ctr.semantic_ids names none"),
        ({"ctr__semantic_ids": "plane"}, "ctr.semantic_ids: unknown name 'plane'; did you mean 'plain'"),
        ({"ctr__models": {"oracle": {"model": "avg"}}}, "ctr.models.oracle: this name is taken"),
        (
            {"ctr__models": {"a": {"model": "lemur", "long": 0, "recent": 0, "cosines": True}}},
            "ctr.models.a.cosines: are of target and events, and neither long nor recent reads any",
        ),
        ({"ctr__models": {"a": {"model": "sims"}}}, "ctr.models.a.model: unknown model 'sims'; did you mean 'sdim'"),
        ({"ctr__models": {"a": {"model": "avg", "k": 3}}}, "ctr.models.a.k: unknown key 'k'"),
        (
            {"ctr__models": {"a": {"model": "mirrn", "dim": 10, "category_dim": 0}}},
            "ctr.models.a: heads 4 do not divide the width 10 of item vectors",
        ),
        ({"ctr__models": {"a": {"model": "mirrn", "category_dim": 5}}}, "heads 4 do not divide the width 21"),
        ({"ctr__samples": {"source": "clicks"}}, "ctr.samples: unknown source 'clicks'"),
        ({"ctr__samples__split": {"past": 0.9, "test": 0.1}}, "none trains"),
        ({"ctr__training__processes": 0}, "ctr.training.processes: "),
        (
            {"ctr__training": {"batch": 2, "processes": 3}},
            "ctr.training.batch: 2 impressions for 3 processes; expected one each, or more",
        ),
        ({"ctr__evaluation__history_bins": [5, 5]}, "ascending positive whole numbers"),
        ({"ctr__models": {"a": {"model": "din", "attention_hidden": []}}}, "ctr.models.a.attention_hidden"),
        (
            {"ctr__models": {"a": {"model": "r2led", "level_weights": [1.0] * 9}}},
            "ctr.models.a.level_weights",
        ),
        (
            {"tables__other": {"recipe": "latent"},
             "semantic_ids__plain": {"quantizer": "mm_rq_vae", "tables": ["latent", "other"], "codes": 8}},
            "ctr.semantic_ids: 'plain' has codes a table",
        ),
        (
            {"datasets__lifelong__split": {"kind": "global_temporal", "valid": "x"}},
            "'x' is neither a share nor a day",
        ),
        ({"tables__latent": {"recipe": "collaborative"}}, "table 'latent' learned from histories, whose cuts"),
    ],
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tiny(**changes), "my.yaml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("model", "samples", "text", "said"),
    [
        ("sim_hard", {}, ["genre"], "'category' is no attribute of the items of datasets.lifelong (`items.text`)"),
        ("sim_hard", {}, [], "(`items.text`); models.a needs categories"),
        ("avg", {"category": "genres"}, ["genre"], "(`items.text`); did you mean 'genre'?"),
        ("avg", {"distribution": "category"}, ["genre"], "; samples.distribution needs categories"),
        ("avg", {}, ["genre"], None),
        ("sim_hard", {"category": "genre"}, ["genre"], None),
    ],
)
def test_categories_of_items_that_have_none(
    model: str, samples: dict[str, Any], text: list[str], said: str | None
) -> None:
    items = {"path": "y.csv", "id": "sku", "text": text}
    data = {"source": "columns", "path": "x.csv", "timestamp": "t", "items": items}
    changes = {"ctr__models": {"a": {"model": model}}, "ctr__semantic_ids": None, "ctr__reference": None}
    config = {**tiny(datasets={"lifelong": data}, **changes), "tables": {}, "semantic_ids": {}}
    config["ctr"]["samples"] = {"source": "positives", **samples}
    if said is None:
        load(config, "my.yaml")
        return
    with pytest.raises(ConfigError) as error:
        load(config, "my.yaml")
    assert "my.yaml: ctr.samples.category: " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"fields": ["titel", "brand"]}, ["fields.0: 'titel' is no attribute"]),
        ({"tokens": {"brnd": 4}}, ["tokens.brnd: 'brnd' is no attribute"]),
        ({"fields": ["title", "brand"], "tokens": {"title": 4}}, []),
    ],
)
def test_texts_that_lemur_is_to_read_of_items_that_have_none(content: dict[str, Any], told: list[str]) -> None:
    items = {"path": "y.csv", "id": "sku", "text": ["brand"]}
    data = {"source": "columns", "path": "x.csv", "timestamp": "t", "items": items}
    changes = {"ctr__models": {"a": {"model": "lemur"}}, "ctr__semantic_ids": None, "ctr__reference": None}
    config = {**tiny(datasets={"lifelong": data}, **changes), "tables": {}, "semantic_ids": {}}
    config["ctr"] |= {"samples": {"source": "positives"}, "content": {"picture": None, **content}}
    if not told:
        load(config, "my.yaml")
        return
    with pytest.raises(ConfigError) as error:
        load(config, "my.yaml")
    for line, beginning in zip(str(error.value).splitlines(), told, strict=True):
        assert line.startswith(f"my.yaml: ctr.content.{beginning} of the items of datasets.lifelong")


def test_cosines_of_no_events_may_stand_where_nobody_asked_for_them() -> None:
    """Also in a job, which reads all keys."""
    model = {"model": "lemur", "long": 0, "recent": 0, "forwarded": 0.5, "refresh": "age", "learned": 0.5}
    config = load(tiny(ctr__models={"a": model}, ctr__reference=None, ctr__semantic_ids=None))
    for run in Plan(config).click_runs.values():
        assert type(run).model_validate_json(run.model_dump_json()) == run


def test_width_of_mirrn_is_its_own_affair_where_codebooks_have_a_say() -> None:
    load(
        tiny(
            ctr__models={"a": {"model": "mirrn", "dim": 10, "category_dim": 0, "read_codes": True}}, ctr__reference=None
        )
    )


def test_a_model_may_read_codes_beside_r2led() -> None:
    config = load(
        tiny(ctr__models={"a": {"model": "din", "read_codes": True}, "b": {"model": "din"}}, ctr__reference=None)
    )
    assert [run.semantic_ids for run in Plan(config).click_runs.values()] == [True, True, False, False]


def test_a_reference_with_which_nothing_is_compared_may_have_other_seeds() -> None:
    models = {"r2led": {"model": "r2led", "seeds": [1, 7]}, "din_long": {"model": "din", "window": None, "seeds": [1]}}
    config = load(tiny(ctr__models=models, ctr__baseline="r2led", ctr__evaluation={"recall_samples": 0}))
    jobs = Jobs(Plan(config))
    assert all(jobs.clicks.reference(run) is None for run in jobs.plan.click_runs.values())


def test_the_order_of_given_parts_is_kept_and_nothing_held_out_by_it() -> None:
    """A log without times has no other order; what the source calls test is a row as any other."""
    data = {"source": "columns", "path": "x.csv", "rating": "r", "split_column": "p", "split": {"kind": "given"}}
    models = {"din": {"model": "din"}}
    changes = {"ctr__models": models, "ctr__semantic_ids": None, "ctr__reference": None, "ctr__baseline": None}
    config = {**tiny(datasets={"lifelong": data}, **changes), "tables": {}, "semantic_ids": {}}
    config["ctr"]["samples"] = {"source": "impressions", "split": {"by": "position"}}
    jobs = Jobs(Plan(load(config)))
    assert json.loads(jobs.prepare("lifelong"))["split"] == {"kind": "none", "by_part": True}
