"""What the README shows is run."""

import re
from pathlib import Path

import pytest
import yaml

from tessera.settings.config import load

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_code_runs() -> None:
    (code,) = blocks("python")
    names: dict = {}
    exec(code, names)
    assert names["scores"].shape == (2, 100)


def test_the_config_is_valid() -> None:
    (config,) = blocks("yaml")
    assert {run.recommender for run in load(yaml.safe_load(config)).runs("shop")} >= {"sasrec", "gru4rec", "popular"}


@pytest.mark.parametrize("page", sorted({link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link}))
def test_links_lead_somewhere(page: str) -> None:
    assert (ROOT / page).is_file()
