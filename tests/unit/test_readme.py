"""What the README shows is run."""

import re
from pathlib import Path

import pytest
import yaml

from tessera.plan.graph import Plan
from tessera.settings.backbones.gru4rec import GRU4RecSettings
from tessera.settings.backbones.sasrec import SASRecSettings
from tessera.settings.base import PresetSettings
from tessera.settings.config import load
from tessera.settings.items.table import TableItems
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.scft import SCFTTable
from tessera.settings.systems.mme_sid import MMESIDSystem

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


PAGES = sorted((ROOT / "docs/systems").glob("*.md"))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_python_code_runs() -> None:
    # what opens a finished run is run where there is one: tests/unit/recommenders/test_load.py
    (code,) = [block for block in blocks("python") if "tessera.load" not in block]
    names: dict = {}
    exec(code, names)
    assert names["scores"].shape == (2, 100)


def test_the_config_of_own_data_is_valid() -> None:
    config = yaml.safe_load(blocks("yaml")[0])
    assert {run.recommender for run in Plan(load(config)).runs} >= {"sasrec", "gru4rec", "popular"}
    with_texts = config | yaml.safe_load(blocks("yaml")[1])
    assert {run.system for run in Plan(load(with_texts)).runs} == {"popular", "item_knn", "markov", "id", "text"}


def test_the_config_of_language_models_is_valid() -> None:
    config = load(yaml.safe_load(blocks("yaml")[2]))
    assert {run.system for run in Plan(config).runs} == {"id", "text", "llmemb", "reaemb"}
    assert {config.tables[name].recipe for name in config.tables} == {"text", "scft", "lrcl", "crrl"}


def test_the_config_of_semantic_ids_is_valid() -> None:
    config = load(yaml.safe_load(blocks("yaml")[3]))
    assert {run.recommender for run in Plan(config).runs} == {"sasrec", "tiger", "mme_sid"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_pages_of_systems_show_is_valid(page: Path) -> None:
    for shown in blocks("yaml", page.read_text(encoding="utf-8")):
        part = yaml.safe_load(shown)
        run = {"datasets": ["bazaar"], "systems": [*part.get("systems", {}), "id"]}
        run |= part.pop("experiment", {})
        load({"datasets": {"bazaar": {"source": "bazaar"}}, "experiment": run} | part)


@pytest.mark.parametrize(
    ("page", "settings"),
    [
        ("llmemb", SCFTTable), ("llmemb", TableItems), ("llmemb", SASRecSettings), ("llmemb", GRU4RecSettings),
        ("reaemb", LRCLTable), ("reaemb", CRRLTable), ("mme_sid", MMESIDSystem),
    ],
)  # fmt: skip
def test_pages_name_every_published_habit(page: str, settings: type[PresetSettings]) -> None:
    text = (ROOT / f"docs/systems/{page}.md").read_text(encoding="utf-8")
    for key, value in settings.OFFICIAL.items():
        for name, habit in value.items() if isinstance(value, dict) else [(key, value)]:
            shown = str(habit).lower() if isinstance(habit, bool) else str(habit)
            assert f"{name}: {shown}" in text, f"{page}: {name}: {shown}"


def test_files_that_pages_name_are_there() -> None:
    for page in [*PAGES, *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        for named in re.findall(r"`(src/tessera/[\w/{},]+\.py)`", page.read_text(encoding="utf-8")):
            before, _, rest = named.partition("{")
            inside, _, after = rest.partition("}")
            for name in inside.split(","):
                assert (ROOT / f"{before}{name}{after}").is_file(), f"{page}: {named}"


def test_pages_lead_somewhere() -> None:
    for page in [*PAGES, *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("page", sorted({link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link}))
def test_links_lead_somewhere(page: str) -> None:
    assert (ROOT / page).is_file()
