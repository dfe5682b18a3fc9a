"""A wrong config is refused with the path, the value and the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from changing import with_key

from tessera.plan.graph import Plan
from tessera.plan.required import check_files, dataset_files
from tessera.settings.base import ConfigError, did_you_mean
from tessera.settings.config import Config, load

ROOT = Path(__file__).resolve().parents[3]

GOOD: dict[str, Any] = {
    "datasets": {"shop": {"source": "bazaar", "users": 50}, "films": {"source": "movielens", "path": "ml"}},
    "tables": {"truth": {"recipe": "latent"}},
    "systems": {"seen": {"items": {"table": "truth"}, "backbones": ["sasrec"]}},
    "backbones": {"sasrec": {"dim": 32}, "wide": {"kind": "sasrec", "dim": 128, "training": {"learning_rate": 0.01}}},
    "training": {"epochs": 3},
    "experiment": {"datasets": ["shop"], "systems": ["popular", "id", "seen"], "backbones": ["sasrec", "wide"]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    return with_key(GOOD, path, value)


def test_runs_are_systems_times_backbones_times_seeds() -> None:
    runs = Plan(load(GOOD)).runs
    paths = [run.path for run in runs]
    assert paths[:2] == ["popular/popular/seed-0", "id/sasrec/seed-1"]
    assert len(paths) == len(set(paths)) == 1 + 2 * 3 + 3
    wide = next(run for run in runs if run.recommender == "wide")
    assert wide.training.learning_rate == 0.01
    assert wide.training.epochs == 3
    assert all(run.training.learning_rate == 0.001 for run in runs if run.recommender == "sasrec")


def test_short_and_long_forms_are_one() -> None:
    long = changed("systems.seen", {"items": {"kind": "table", "table": "truth"}, "backbones": ["sasrec"]})
    assert load(long).canonical() == load(GOOD).canonical()
    assert load(changed("systems.plain", {"items": "ids"})).systems["plain"].items.kind == "ids"  # type: ignore[union-attr]


def test_canonical_does_not_depend_on_the_order_of_keys() -> None:
    turned = dict(reversed(GOOD.items()))
    assert load(turned).canonical() == load(GOOD).canonical()


BAD = [
    ("systems", {False: {"items": "ids"}}, ["systems: False is no name; YAML reads on, off, yes and no as true"]),
    ("trainin", {"epochs": 1}, ["trainin", "did you mean 'training'?"]),
    ("training.epoch", 5, ["training.epoch", "value 5", "did you mean 'epochs'?"]),
    ("training.epochs", "many", ["training.epochs", "whole number", "'many'"]),
    ("training.epochs", -1, ["training.epochs", "expected 0 or more", "got -1"]),
    ("training.learning_rate", "1e-4", ["training.learning_rate", "1e-4", "1.0e-4"]),
    ("training.device", "gpu", ["training.device", "'gpu'", "cuda"]),
    ("datasets.shop.source", "bazar", ["datasets.shop", "unknown source 'bazar'", "did you mean 'bazaar'?"]),
    ("datasets.shop.user", 10, ["datasets.shop.user", "did you mean 'users'?"]),
    ("datasets.shop.users", "200", ["datasets.shop.users", "'200'"]),
    ("datasets.shop.cleaning.core.user", 3, ["datasets.shop.cleaning.core.user", "did you mean 'users'?"]),
    ("datasets.films", {"source": "movielens"}, ["datasets.films.path", "is missing"]),
    ("datasets.films", {"path": "x"}, ["datasets.films", "needs a key 'source'"]),
    ("datasets.tables", {"source": "bazaar"}, ["datasets.tables", "taken"]),
    ("systems.oracle", {"recommender": "popular"}, ["systems.oracle", "taken"]),
    ("systems.x", {"recommender": "poplar"}, ["systems.x", "'poplar'", "did you mean 'popular'?"]),
    ("systems.a/b", {"recommender": "popular"}, ["systems.a/b", "letters"]),
    ("systems.seen.items.table", "trut", ["systems.seen.items.table", "'trut'", "did you mean 'truth'?"]),
    ("systems.seen.items.adaptor", [8], ["systems.seen.items.adaptor", "did you mean 'adapter'?"]),
    ("systems.seen.items.adapter", ["wide"], ["systems.seen.items.adapter.0", "'wide'"]),
    ("systems.seen.items.dropout", 2.0, ["systems.seen.items.dropout", "less than 1", "2.0"]),
    ("systems.seen.backbones", ["sasrek"], ["systems.seen.backbones.0", "did you mean 'sasrec'?"]),
    ("systems.seen.training", {"epoch": 3}, ["systems.seen.training.epoch", "did you mean 'epochs'?"]),
    ("backbones.sasrec.heads", 5, ["backbones.sasrec.heads", "5 does not divide dim 32"]),
    ("backbones.sasrec.training", {"learning_rate": "fast"}, ["backbones.sasrec.training.learning_rate", "'fast'"]),
    ("loss", {"kind": "bce", "negative": 3}, ["loss.negative", "did you mean 'negatives'?"]),
    ("loss", {"kind": "crossentropy"}, ["loss", "did you mean 'cross_entropy'?"]),
    ("evaluation.cutoffs", [10, 5], ["evaluation.cutoffs", "ascending", "(got [10, 5])"]),
    ("evaluation.test_users_seed", 3, ["evaluation.test_users_seed: draws nothing without `test_users`"]),
    ("robustness.rates", [1, 0.5], ["robustness.rates", "ascending", "(got [1.0, 0.5])"]),
    ("evaluation.candidates", {"kind": "sample"}, ["evaluation.candidates", "did you mean 'sampled'?"]),
    ("significance.baseline", "id/sasrek", ["significance.baseline", "did you mean 'id/sasrec'?"]),
    ("experiment.systems", ["popular", "idd"], ["experiment.systems.1", "'idd'", "did you mean 'id'?"]),
    ("experiment.datasets", ["shp"], ["experiment.datasets.0", "did you mean 'shop'?"]),
    ("experiment.datasets", ["films"], ["tables.truth", "bazaar", "films"]),
    ("experiment.seeds", [1, 1], ["experiment.seeds", "twice"]),
    ("experiment.seeds", [], ["experiment.seeds", "at least 1"]),
    ("resources.train.gpus", 1, ["resources.train.gpus", "did you mean 'gpu'?"]),
]


@pytest.mark.parametrize(("path", "value", "expected"), BAD, ids=[f"{path}={value}" for path, value, _ in BAD])
def test_bad_configs_are_told_apart(path: str, value: Any, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changed(path, value), "my.yaml")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in ["my.yaml: ", *expected]:
        assert part in message


def test_every_problem_is_told_at_once() -> None:
    config = changed("training.epoch", 5)
    config["loss"] = {"kind": "nothing"}
    with pytest.raises(ConfigError) as caught:
        load(config)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("config", [None, [], "text", {}, {"datasets": {}, "experiment": {"datasets": []}}])
def test_what_is_no_config_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError):
        load(config)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_what_jobs_are_given_is_read_back_as_it_was(path: Path) -> None:
    """A job's settings name every key; a check of which keys were written belongs to `problems`."""
    plan = Plan(load(yaml.safe_load(path.read_text())))
    config = plan.config
    settings = [*plan.trained.values(), *plan.click_runs.values()]
    for section in (config.datasets, config.tables, config.semantic_ids, config.captions, config.models):
        settings += section.values()
    for given in settings:
        assert type(given).model_validate(given.model_dump(mode="json")) == given


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_are_good(path: Path) -> None:
    config = load(yaml.safe_load(path.read_text()), path.name)
    assert Plan(config).runs or Plan(config).click_runs


@pytest.mark.parametrize("name", ["popular", "id", "seen", "id/sasrec", "popular/popular"])
def test_a_systems_own_name_is_a_baseline(name: str) -> None:
    assert load(changed("significance.baseline", name)).significance.baseline == name


def test_a_heuristic_has_one_name() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'popular'\? \(known: id, id/sasrec, id/wide, popular, seen"):
        load(changed("significance.baseline", "populer"))


def test_nearest_name() -> None:
    assert did_you_mean("sasrek", ["sasrec", "gru4rec"]).startswith("; did you mean 'sasrec'?")
    assert "did you mean" not in did_you_mean("zzz", ["sasrec"])


def test_the_nearest_name_is_near_in_any_case() -> None:
    assert did_you_mean("ndcg@10", ["NDCG@10", "NDCG@5", "gini@10"]).startswith("; did you mean 'NDCG@10'?")
    assert did_you_mean("item", ["ITEM", "USER"]).startswith("; did you mean 'ITEM'?")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("experiment.seeds", 1, "expected a list, as in [a, b] (got 1)"),
        ("datasets.shop.split", "leave_one_out", "expected keys with values, as in {key: value} (got 'leave_one_out')"),
        ("datasets.shop.cleaning.core", 5, "expected keys with values, as in {key: value} (got 5)"),
        ("training", None, "expected keys with values, as in {key: value} (got None)"),
        ("systems", {"x": 3}, "expected keys with values, 'recommender' among them (got 3)"),
        ("datasets.shop.user", 0, "expected a text: write it in quotes, '0' (got 0)"),
        ("datasets.shop.user", False, "YAML reads yes, no, on and off as true and false, write it in quotes"),
        ("datasets.shop.cleaning.max_history", 2, "expected 3 or more (got 2)"),
        ("datasets.shop.separator", r"\t", r"""expected one character; a tab is "\t", in double quotes (got '\\t')"""),
        ("datasets.shop.separator", ", ", "expected one character (got ', ')"),
        ("training.epochs", 1.5, "expected a whole number (got 1.5)"),
        ("training.learning_rate", "fast", "expected a number (got 'fast')"),
        ("evaluation.mask_seen", "ja", "expected true or false (got 'ja')"),
    ],
)
def test_what_was_expected_is_told_in_words_of_a_config(path: str, value: Any, said: str) -> None:
    log = {"datasets": {"shop": {"source": "columns", "path": "x.csv"}}, "experiment": {"datasets": ["shop"]}}
    with pytest.raises(ConfigError) as caught:
        load(with_key(log, path, value), "my.yaml")
    assert said in str(caught.value)
    assert "Input should" not in str(caught.value)


def test_a_key_that_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"my\.yaml: experiment: is missing, and has no default"):
        load({"datasets": {"shop": {"source": "bazaar"}}}, "my.yaml")


def test_a_column_is_named_for_one_thing() -> None:
    log = {"source": "columns", "path": "x.csv", "user": "sku", "item": "sku"}
    with pytest.raises(ConfigError, match=r"datasets\.shop\.item: names the column 'sku', as `user` does"):
        load({"datasets": {"shop": log}, "experiment": {"datasets": ["shop"]}}, "my.yaml")


def test_no_text_is_told_under_the_name_of_the_title() -> None:
    """Prompts told both, `prompt.attributes` and the fields of LEMUR the text alone: the title was lost."""
    items = {"path": "y.csv", "id": "sku", "title": "name", "text": ["brand", "title"]}
    log = {"source": "columns", "path": "x.csv", "items": items}
    with pytest.raises(ConfigError, match=r"items\.text: 'title' would be told under one name with the column 'name'"):
        load({"datasets": {"shop": log}, "experiment": {"datasets": ["shop"]}}, "my.yaml")
    del items["title"]
    load({"datasets": {"shop": log}, "experiment": {"datasets": ["shop"]}}, "my.yaml")


def test_missing_files_are_told_with_their_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ml-100k").mkdir()
    monkeypatch.setenv("TESSERA_DATA", str(tmp_path))
    config = changed("datasets.films.path", "ml-10k")
    config["experiment"]["datasets"] = ["films"]
    config["experiment"]["systems"] = ["popular"]
    config["tables"] = {}
    config["systems"] = {}
    with pytest.raises(ConfigError, match=r"films\.yaml: datasets\.films\.path: .*ml-100k"):
        check_files(Plan(load(config)), "films.yaml")
    config["datasets"]["films"]["path"] = "ml-100k"
    config["evaluation"] = {"candidates": {"kind": "file", "path": "negatives.txt"}}
    config["tables"] = {"vectors": {"recipe": "vectors", "path": "v.npy"}}
    check_only = load({**config, "evaluation": {}})
    check_files(Plan(check_only))  # the table is not used by any system of the experiment
    (tmp_path / "ml-100k/u.data").touch()
    (tmp_path / "ml-100k/README").touch()
    assert dataset_files(check_only, "films") == [tmp_path / "ml-100k/u.data"]
    config["systems"] = {"text": {"items": {"table": "vectors"}}}
    config["experiment"]["systems"] = ["text"]
    with pytest.raises(ConfigError) as caught:
        check_files(Plan(load(config)))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "tables.vectors.path" in lines[0]
    assert "evaluation.candidates.path" in lines[1]


def test_urls_are_not_looked_for() -> None:
    config = with_dataset({"source": "columns", "path": "https://example.org/log.csv", "sha256": "0" * 64})
    check_files(Plan(load(config)))


def with_dataset(settings: dict[str, Any]) -> dict[str, Any]:
    return {"datasets": {"own": settings}, "experiment": {"datasets": ["own"], "systems": ["popular"]}}


URL = "https://someone:secret@example.org/log.csv?token=secret"


@pytest.mark.parametrize(
    ("settings", "key", "expected"),
    [
        ({"source": "columns", "path": URL}, "path", "needs the key 'sha256'"),
        ({"source": "columns", "path": "s3://bucket/log.csv", "sha256": "0" * 64}, "path", "only http, https and ftp"),
        ({"source": "columns", "path": "https:///log.csv", "sha256": "0" * 64}, "path", "is no URL"),
        ({"source": "columns", "path": "http://[x/log.csv", "sha256": "0" * 64}, "path", "is no URL"),
        ({"source": "movielens", "path": URL, "sha256": "0" * 64}, "path", "a URL is not taken here"),
        ({"source": "amazon_2018", "path": "log.csv", "metadata": URL}, "metadata", "a URL is not taken here"),
        ({"source": "columns", "path": "log.csv", "images": URL}, "images", "a URL is not taken here"),
        ({"source": "columns", "path": "log.csv", "images": "log.csv"}, "images", "is no folder"),
        ({"source": "amazon_2018", "path": "log.csv", "metadata": "."}, "metadata", "is a folder, expected a file"),
        ({"source": "columns", "path": "log.csv", "items": {"path": URL, "id": "x"}}, "items.path", "'sha256'"),
        ({"source": "columns", "path": "~nouser/log.csv"}, "path", "there is no user 'nouser'"),
        ({"source": "columns", "path": " "}, "path", "is no path"),
        ({"source": "columns", "path": "a\0b"}, "path", "is no path"),
        ({"source": "columns", "path": "x" * 300}, "path", "name too long"),
        ({"source": "columns", "path": "log.csv/x"}, "path", "no such file or folder"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_told_before_anything_runs(
    settings: dict[str, Any], key: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TESSERA_DATA", raising=False)
    (tmp_path / "log.csv").write_text("user,item\n")
    with pytest.raises(ConfigError) as caught:
        check_files(Plan(load(with_dataset(settings))), "my.yaml")
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert said.startswith(f"my.yaml: datasets.own.{key}: ")
    assert expected in said.replace("Name", "name")
    assert "secret" not in said


@pytest.mark.parametrize("sum_", ["x", "../../etc/passwd", "A" * 64, "0" * 63])
@pytest.mark.parametrize("place", ["sha256", "items.sha256"])
def test_a_checksum_is_64_digits(place: str, sum_: str) -> None:
    config = with_dataset({"source": "columns", "path": URL, "items": {"path": URL, "id": "x"}})
    with pytest.raises(ConfigError, match=f"datasets.own.{place}: "):
        load(with_key(config, f"datasets.own.{place}", sum_))


def test_settings_are_frozen() -> None:
    config: Config = load(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 5


def test_a_section_with_some_keys_keeps_the_other_defaults_of_its_place() -> None:
    given = {
        "datasets": {"x": {"source": "bazaar"}},
        "models": {"m": {"built": "qwen2.5-vl", "training": {"steps": 7}}},
        "resources": {"train": {"gpu": 1}},
        "experiment": {"datasets": ["x"]},
    }
    config = load(given)
    plain = load({key: value for key, value in given.items() if key not in ("models", "resources")})
    small, built = config.models["m"].training, plain.models["small"].training
    assert small == built.model_copy(update={"steps": 7})
    assert config.resources.train == plain.resources.train.model_copy(update={"gpu": 1})
    assert given["resources"] == {"train": {"gpu": 1}}


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (
            {"image": 0.5},
            "missing.image: no system reads a table that is made from it (they read what is made from: text)",
        ),
        ({"text": 0.5}, None),
        ({"image": 0.5, "text": 0.5, "when": "test"}, "of all systems"),
        ({"pattern": "one_modality", "image": 0.5, "text": 0.5}, None),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_what_nobody_reads_cannot_be_missing(missing: dict[str, Any], told: str | None, own: bool) -> None:
    system = {"items": {"table": "text"}, **({"missing": missing} if own else {})}
    config = {
        "datasets": {"shop": {"source": "bazaar"}}, "tables": {"text": {"recipe": "text", "model": "small"}},
        "systems": {"text": system}, "experiment": {"datasets": ["shop"], "systems": ["id", "text"]},
        **({} if own else {"missing": missing}),
    }  # fmt: skip
    if told is None or (told == "of all systems" and not own):
        load(config)
        return
    with pytest.raises(ConfigError, match=r"no (system reads a|table that it reads)"):
        load(config)


def test_nothing_is_lost_of_vectors_that_do_not_say_what_they_are_made_from() -> None:
    config = {
        "datasets": {"shop": {"source": "bazaar"}}, "tables": {"vec": {"recipe": "vectors", "path": "x.npy"}},
        "systems": {"vec": {"items": {"table": "vec"}}}, "experiment": {"datasets": ["shop"], "systems": ["vec"]},
        "missing": {"image": 0.5},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"missing\.image: .*; of given vectors say it in tables\.vec\.made_from"):
        load(config)
