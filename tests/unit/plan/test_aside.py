"""What no result depends on, such as how work is cut, is in no fingerprint and in no name of a state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.settings.base import Aside, Settings
from tessera.settings.clicks.lemur import LEMURSettings
from tessera.settings.config import load
from tessera.settings.language import Captions, HubModel
from tessera.settings.recipes.hidden import HiddenTable

ROOT = Path(__file__).resolve().parents[3]
ASIDES = {
    "captions.looks": {"shard": 7, "jobs": 3},
    "tables.seen": {"shard": 7},
    "models.large": {"offline": True},
    "models.small.training": {"checkpoint_seconds": 7.0, "trackers": ["tensorboard"], "trackers_online": True},
}


def config() -> dict[str, Any]:
    """The tiny config with a hidden table, and captions of a model of the hub."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    found["tables"]["seen"] = {"recipe": "hidden", "model": "small"}
    found["models"]["large"] = {"hub": "Qwen/Qwen2.5-0.5B-Instruct", "revision": "0" * 40}
    found["tables"]["read"] = {"recipe": "text", "model": "large"}
    found["systems"]["seen"] = {"items": {"table": "seen"}}
    found["systems"]["read"] = {"items": {"table": "read"}}
    found["experiment"]["systems"] += ["seen", "read"]
    return found


def told(written: dict[str, Any]) -> dict[str, str]:
    """The settings of every job."""
    plan = Plan(load(written))
    jobs = Jobs(plan)
    (dataset,) = plan.config.experiment.datasets
    return {f"{noun.kind} {noun.name}": jobs.settings(noun, dataset) for noun in plan.nouns}


def recorded(written: dict[str, Any]) -> dict[str, str]:
    """What Snakemake records of them."""
    return {name: repr(settings) for name, settings in told(written).items()}


@pytest.mark.parametrize("place", ASIDES)
def test_a_change_re_runs_nothing(place: str) -> None:
    before, changed = recorded(config()), config()
    part = changed
    for key in place.split("."):
        part = part[key]
    part |= ASIDES[place]
    assert recorded(changed) == before
    assert told(changed) != told(config())  # the jobs learn of it all the same


def test_how_a_click_model_holds_its_vectors_re_runs_nothing() -> None:
    """A run that memory did not hold goes on with `mapped: true`."""
    before, changed = (yaml.safe_load((ROOT / "config/ctr-tiny.yaml").read_text()) for _ in range(2))
    for written, keys in ((before, {}), (changed, {"mapped": True})):
        written["ctr"]["models"]["lemur"] = {"model": "lemur", **keys}
    assert recorded(changed) == recorded(before)
    assert told(changed) != told(before)


def test_what_is_read_is_no_aside() -> None:
    changed = config()
    changed["captions"]["looks"]["batch"] = 3  # what is padded to what shows in the last digits
    before, after = recorded(config()), recorded(changed)
    assert [name for name in before if before[name] != after[name]] == ["captions looks"]


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ("systems.text", {"seeds": [1]}),
        ("systems.dmesr", {"backbones": ["sasrec", "gru4rec"]}),
        ("systems.text", {"training": {"checkpoint_seconds": 7.0}}),
        ("backbones.gru4rec", {"training": {"trackers": ["tensorboard"]}}),
    ],
)
def test_what_the_runs_of_a_system_are_is_no_part_of_any_of_them(place: str, keys: dict[str, Any]) -> None:
    """Another list of seeds or backbones makes other runs; those that stay are what they were."""
    before, changed = recorded(config()), config()
    section, name = place.split(".")
    changed[section][name] |= keys
    after = recorded(changed)
    runs = {noun for noun in before if noun.startswith("run ")} & set(after)
    assert len(runs) > 5
    assert {noun: before[noun] for noun in runs} == {noun: after[noun] for noun in runs}


def asides(model: type[Settings]) -> set[str]:
    """Fields of settings that are marked."""
    return {name for name, field in model.model_fields.items() if any(isinstance(m, Aside) for m in field.metadata)}


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Captions, {"shard", "jobs"}),
        (HiddenTable, {"shard"}),
        (HubModel, {"offline"}),
        (LEMURSettings, {"mapped", "seeds"}),
    ],
)
def test_they_are_marked(model: type[Settings], names: set[str]) -> None:
    assert asides(model) == names


def test_names_of_states_do_not_hold_them() -> None:
    one, other = (Captions(model="small", shard=size) for size in (3, 4))
    assert one.canonical() == other.canonical()
    assert one != other
