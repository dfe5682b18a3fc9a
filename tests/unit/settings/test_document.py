"""The schema and the reference agree with the models, and the shipped configs with the schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from jsonschema import Draft202012Validator

from tessera.settings import document
from tessera.settings.base import meanings
from tessera.settings.config import Config

ROOT = Path(__file__).resolve().parents[3]
AGAIN = "run `python -m tessera.settings.document`"


def test_schema_agrees() -> None:
    assert json.loads(document.SCHEMA.read_text()) == document.schema(), AGAIN


def test_reference_agrees() -> None:
    assert document.REFERENCE.read_text() == document.reference(), AGAIN


def test_every_key_is_documented() -> None:
    for model in (Config, *document.PLACES):
        texts = meanings(model)
        for name in model.model_fields:
            assert texts.get(name) or name in document.TAG_MEANING, f"{model.__name__}.{name} says nothing"
        assert model.__doc__


def test_no_two_models_have_one_name() -> None:
    """The schema knows models by their names: of two alike, one would stand for both."""
    names = [model.__name__ for model in document.PLACES]
    assert len(set(names)) == len(names)


def test_links_of_the_reference_lead_somewhere() -> None:
    anchors = {document._anchor(model) for model in document.PLACES}
    assert len(anchors) == len(document.PLACES)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Of the schema, which is made once: it takes a second."""
    schema = document.schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_fit_the_schema(path: Path, validator: Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(path.read_text()))


def test_schema_refuses_unknown_keys(validator: Draft202012Validator) -> None:
    config = {"datasets": {"b": {"source": "bazaar"}}, "experiment": {"datasets": ["b"]}}
    validator.validate(config)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**config, "trainin": {}})
