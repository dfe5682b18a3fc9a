"""Texts that users did not write to be read: everywhere they are shown they are visible, short, and text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import reporting_world
from reporting_world import BAD, HOSTILE_CONFIG, LONG

from tessera.reporting.code_plots import purity
from tessera.reporting.formats import csv_text, escape_latex, escape_markdown, latex, markdown
from tessera.reporting.page import config_text
from tessera.reporting.ranking import collect
from tessera.settings.evaluation import Evaluation, Significance

UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reporting_world.hostile_page(tmp_path_factory.mktemp("hostile"))


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_short_visible_and_text(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    assert len(text) < 2_500_000
    assert not UNSEEN.search(text)
    assert "\\x1b[31m\\x00\\x08\\x9b\\u202egpj.exe\\u2066" in text
    assert "L" * 3000 not in text
    reader = Reader()
    reader.feed(text)
    assert not [attributes for _, attributes in reader.tags if any(name.startswith("on") for name in attributes)]
    assert {(a["src"] or "")[:11] for tag, a in reader.tags if tag == "img"} == {"data:image/"}
    assert "49" not in "".join(t for t in reader.texts if "gpj.exe" in t and "7*7" not in t)
    explorer = [t for t in reader.texts if t.startswith(('{"tables"', '{"trees"'))]
    assert len(explorer) == 2
    for data in map(json.loads, explorer):
        assert not any(UNSEEN.search(value) for row in data["items"] for value in row[:2])
        assert all(len(value) < 1000 for row in data["items"] for value in row[:2])


def test_passwords_are_not_on_the_page(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    for secret in ("s3cret", "abcdef", "5ig"):
        assert secret not in text
    assert "https://***@host/x.csv?token=***" in text
    assert "X-Amz-Signature=***" in text


def test_broken_pictures_are_counted_on_the_page(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    assert re.search(r"[123] pictures of this page cannot be read: 00[145]\.png: cannot be decoded", text)


def test_what_became_of_texts_is_told(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    assert (
        "7 titles: nothing but markup or code, left empty; 2 other texts: lost markup; 30 items have the same title"
        in text
    )
    assert "<dt>items with a title</dt><dd>50.0%</dd>" in text


def test_plots_are_whole_drawings(hostile: Path) -> None:
    drawings = sorted((hostile.parent / "plots" / "bazaar").glob("*.svg"))
    assert len(drawings) > 8
    for drawing in drawings:
        ElementTree.parse(drawing)  # raises where it is no XML


def test_names_of_attributes_make_files() -> None:
    level = {"information": 0.2, "information_by_chance": 0.1, "majority": 0.5, "majority_by_chance": 0.4}
    levels = [{"level": 1, **level}, {"level": 2, **level}]
    names = [f"{BAD}{LONG}", "../../etc", "größe", "Größe!"]
    made = purity({"plain": {"purity": dict.fromkeys(names, levels)}})
    files = [plot.name for plot in made]
    assert len(set(files)) == 4
    assert all(re.fullmatch(r"[\w-]{1,100}", name) for name in files)
    assert not any(UNSEEN.search(plot.title) or len(plot.title) > 400 for plot in made)


def test_tables_hold_no_markup_and_nothing_unseen(results: Path) -> None:
    files = reporting_world.metric_files(results)
    table = collect("bazaar", files, reporting_world.ORDER, Evaluation(), Significance(resamples=100))
    table.dataset = f"{BAD}|{LONG}"
    table.entries[0] = type(table.entries[0])(f"=cmd()\n{BAD}", table.entries[0].recommender, table.entries[0].runs)
    for text in (markdown(table), latex(table), csv_text(table)):
        assert not UNSEEN.search(text)
        assert len(text) < 40_000
    assert "<img" not in markdown(table).replace("\\<img", "")
    assert escape_markdown("a & b &lt; <i> `x` |") == r"a \& b \&lt; \<i\> \`x\` \|"
    assert escape_latex('a|"b"…') == r"a\textbar{}''b''\ldots{}"


def test_the_config_is_yaml(hostile: Path) -> None:
    text = config_text(HOSTILE_CONFIG)
    assert len(text) < 20_000
    assert "s3cret" not in text
