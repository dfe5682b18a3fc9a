"""An edit of the config of sessions makes again what depends on it: TPAD learns its features in its runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.settings.config import load

CONFIG = Path(__file__).resolve().parents[3] / "config/tpad.yaml"
BACKBONES = ("gru4rec", "sasrec", "srgnn")
WHOLE = {f"tpad/{backbone}" for backbone in BACKBONES}
PARTS = ("no_generation", "no_disentangling", "no_bounds", "no_mmd", "knowledge_only", "transfer_only")
ABLATIONS = {f"{name}/gru4rec" for name in PARTS}


def jobs(**changes: Any) -> Jobs:
    """A double underscore goes one level down."""
    config = yaml.safe_load(CONFIG.read_text())
    for path, value in changes.items():
        *outer, last = path.split("__")
        part = config
        for key in outer:
            part = part.setdefault(key, {})
        part[last] = value
    return Jobs(Plan(load(config)))


def carried(of: Jobs) -> dict[str, str]:
    """What each job depends on besides its code, with the names of its inputs."""
    told = {noun.name: of.settings(noun, "sessions") + str(of.inputs(noun, "sessions")) for noun in of.plan.nouns}
    return told | {"ingest": of.ingest("sessions"), "prepare": of.prepare("sessions")}


def without_seed(name: str) -> str:
    return re.sub(r"/seed-\d+$", "", name)


def changed(before: Jobs, after: Jobs) -> set[str]:
    """The jobs that differ; runs without their seeds."""
    old, new = carried(before), carried(after)
    assert old.keys() == new.keys()
    return {without_seed(name) for name in old if old[name] != new[name]}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        # what follows from the dataset is stale by the files that it is made of
        ("datasets__sessions__sessions__minutes", 60, {"prepare"}),
        ("datasets__sessions__sessions", {"kind": "gap", "minutes": 30.0}, set()),
        ("systems__tpad__image", None, WHOLE),
        ("systems__tpad__disentangling", {"steps": 500}, WHOLE),
        ("systems__no_mmd__disentangling__mmd", 0.5, {"no_mmd/gru4rec"}),
        ("backbones__srgnn", {"kind": "srgnn", "dim": 32}, {"id/srgnn", "text/srgnn", "tpad/srgnn"}),
        # read by name from a file that is made anew
        ("tables__text__view", "image", {"text"}),
    ],
)
def test_what_is_made_again(path: str, value: Any, expected: set[str]) -> None:
    assert changed(jobs(), jobs(**{path: value})) == expected


def test_every_run_of_tpad_reads_its_tables_and_no_other_run() -> None:
    of = jobs()
    reading = {
        without_seed(noun.name)
        for noun in of.plan.nouns
        if noun.kind == "run" and any(read.name == "image" for read in of.plan.reads(noun))
    }
    # `transfer_only` names them and makes nothing of them
    assert reading == WHOLE | ABLATIONS
