"""Item tables, the explorer, captions and remarks on the page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reporting_world
from reporting_world import EVIL, ITEMS

from tessera.artifacts.tables import ArtifactError
from tessera.reporting import formats, table_plots
from tessera.reporting.explorer import chosen_items, explorer_data, read_neighbours
from tessera.reporting.pictures import Pictures
from tessera.reporting.probes import probe_table
from tessera.reporting.ranking import collect
from tessera.reporting.ranking_page import build
from tessera.reporting.representations import captioned, representations
from tessera.reporting.samples import Catalogue
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.reporting import Report


@pytest.fixture(scope="module")
def catalogue(results: Path) -> Catalogue:
    return Catalogue(results / "bazaar" / "data")


@pytest.fixture(scope="module")
def files(results: Path) -> dict[str, dict[str, Path]]:
    return {kind: named["bazaar"] for kind, named in reporting_world.representation_files(results).items()}


def explored(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_explorer_holds_what_the_diagnostics_say(results: Path, files: dict[str, dict[str, Path]]) -> None:
    data = explored((results / "report" / "index.html").read_text(encoding="utf-8"))
    assert data["tables"] == ["text", "tuned"]
    assert len(data["items"]) == ITEMS
    for table, near in zip(data["tables"], data["near"], strict=True):
        stated = json.loads(files["tables"][table].read_text())["neighbours"]
        for place, list_ in enumerate(near):
            if list_ is None:
                assert (table, place) == ("tuned", 6)  # item 7 has no vector there
                continue
            shown, hidden = list_
            assert hidden == 0
            told = [[p + 1, cosine] for p, cosine in shown]
            assert told == [[item, pytest.approx(cosine, abs=1e-3)] for item, cosine in stated[str(place + 1)]]
    title, raw_id, count, picture = data["items"][0]
    assert title == EVIL[:110]
    assert raw_id == "001"
    assert count > 0
    assert picture.startswith("data:image/")
    assert data["items"][1][0] == ""
    assert data["items"][2][3] is None  # no picture


def test_a_large_catalogue_is_sampled_with_neighbours() -> None:
    ids = list(range(1, 501))
    near = {i: [((i + k) % 500 + 1, 0.9) for k in range(3)] for i in ids}
    tables = {"a": near, "b": {i: [((i * 7) % 500 + 1, 0.5)] for i in ids if i % 2}}
    chosen = chosen_items(ids, tables, 60)
    assert chosen == chosen_items(ids, tables, 60)
    assert len(chosen) == 60
    whole = [i for i in chosen if all(n in chosen for table in tables.values() for n, _ in table.get(i, []))]
    assert len(whole) >= 10
    assert chosen_items(ids, tables, 500) == ids
    assert len(chosen_items(ids, tables, 2)) == 2


def test_hidden_neighbours_are_counted_and_none_are_told(catalogue: Catalogue) -> None:
    near = {i: [(i % ITEMS + 1, 0.9), ((i + 19) % ITEMS + 1, 0.8)] for i in range(1, ITEMS + 1) if i != 4}
    data = json.loads(explorer_data(catalogue, {"t": near}, 10))
    assert data["catalogue"] == ITEMS
    assert len(data["items"]) == 10
    told = [entry for entry in data["near"][0] if entry is not None]
    assert all(len(shown) + hidden == 2 for shown, hidden in told)
    assert any(hidden for _, hidden in told)
    assert all(0 <= place < 10 for shown, _ in told for place, _ in shown)
    assert explorer_data(catalogue, {"t": near}, 0) == ""
    assert explorer_data(catalogue, {}, 10) == ""


def test_the_data_cannot_end_its_script(catalogue: Catalogue) -> None:
    text = explorer_data(catalogue, {"</script><b>": {1: [(2, 1.0)]}}, 1000)
    assert "<" not in text
    assert json.loads(text)["tables"] == ["</script><b>"]


def test_captions_show_texts_and_the_reason_where_there_is_none(
    results: Path, catalogue: Catalogue, files: dict[str, dict[str, Path]]
) -> None:
    found = captioned(catalogue, files["captions"], ITEMS)
    assert found is not None
    assert found.counts == [("seen", "39 captioned, 1 no picture"), ("read", "39 captioned, 1 no picture")]
    by_item = {card.item: said for card, said in found.items}
    assert by_item[3] == [("seen", "no picture", False), ("read", "a read thing, number 3", True)]
    assert by_item[1][0] == ("seen", EVIL, True)
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert "Captions" in page
    assert page.count("<dt>seen</dt>") == 12  # every sample item has its captions


def test_diagnostics_are_in_the_table_and_plots(catalogue: Catalogue, files: dict[str, dict[str, Path]]) -> None:
    found = representations(catalogue, files["tables"], files["embedders"], 100)
    assert found is not None
    stated = json.loads(files["tables"]["tuned"].read_text())
    assert [name for name, _ in found.rows] == ["text", "tuned"]
    cells = dict(found.rows)["tuned"]
    assert cells[1] == (39, "39")
    assert cells[4] == (stated["uniformity"], f"{stated['uniformity']:.3f}")
    names = {plot.name for plot in found.plots}
    assert names == {"table-spread", "table-mean-cosine", "table-bin-cosine", "embedders-loss", "embedders-accuracy"}
    spread = next(plot for plot in found.plots if plot.name == "table-spread")
    assert f"tuned: uniformity {stated['uniformity']:.3f}, alignment {stated['alignment']:.3f}" in spread.svg
    loss = next(plot for plot in found.plots if plot.name == "embedders-loss")
    assert f"tuned ends at {5 / 2000**0.5:.4f}" in loss.description
    assert loss.svg.count("tuned, step") <= 60
    assert "var(" not in loss.standalone()


def test_tables_without_numbers_are_shown_without_them(tmp_path: Path, catalogue: Catalogue) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"items": 1, "catalogue": 40, "dim": 6, "neighbours": {}}))
    found = representations(catalogue, {"one": path}, {}, 100)
    assert found is not None
    assert [text for _, text in found.rows[0][1]] == ["6", "1", "–", "–", "–", "–", "–"]
    assert found.plots == []
    assert representations(catalogue, {}, {}, 100) is None
    assert captioned(catalogue, {}, 4) is None
    assert table_plots.embedder_curves({"short": [{"step": 1, "loss": 2.0}]}) == []


def said(accuracy: float, majority: float = 0.2, **more: Any) -> dict[str, Any]:
    told = {"accuracy": accuracy, "balanced": accuracy - 0.01, "majority": majority, "values": 4, "items": 40}
    return {**told, "judged": 40, "left_out": 0, **more}


PROBED: dict[str, dict[str, Any]] = {
    "text": {"probes": {"brand": said(0.5, left_out=3)}, "hidden_probes": {"material": said(0.44)}, "bound": False},
    "tuned": {
        "probes": {"brand": said(0.15)},
        "hidden_probes": {"material": said(0.97, left_out=1_200)},
        "bound": False,
    },
    "latent": {"probes": {"brand": said(1.0)}, "hidden_probes": {"material": said(1.0)}, "bound": True},
    "bare": {"probes": {}, "unprobed": ["description", EVIL]},
}


def test_probes_are_a_table_with_the_best_that_is_no_bound() -> None:
    made = probe_table(PROBED, dict.fromkeys(PROBED, "x.json"))
    assert made is not None
    assert [tuple(attribute) for attribute in made.attributes] == [("brand", "4", False), ("material", "4", True)]
    assert [cell.text for cell in made.majority] == ["20.0", "20.0"]
    rows = {name: (bound, [(cell.text, cell.best) for cell in cells]) for name, bound, cells in made.rows}
    assert rows == {
        "text": (False, [("50.0", True), ("44.0", False)]),
        "tuned": (False, [("15.0", False), ("97.0", True)]),
        "latent": (True, [("100.0", False), ("100.0", False)]),
        "bare": (False, [("–", False), ("–", False)]),
    }
    notes = "; ".join(made.notes)
    assert "no column of its items: material" in notes
    assert "not probed (texts, numbers, or too few items): description" in notes
    assert "up to 1,200 items of rare values or beyond a sample of 20,000 are left out" in notes
    chance = probe_table({"text": {"probes": {"brand": said(0.2)}}}, {"text": "x.json"})
    assert chance is not None
    assert not chance.rows[0][2][0].best  # what the most frequent value gets is no knowledge
    assert probe_table({"text": {"probes": {}}, "old": {}}, {"text": "x.json", "old": "y.json"}) is None
    with pytest.raises(ArtifactError, match=r"x\.json: the probe of 'brand' lacks the key 'balanced'"):
        probe_table({"text": {"probes": {"brand": {"accuracy": 1.0}}}}, {"text": "x.json"})


def test_a_column_and_the_truth_of_one_name_are_apart() -> None:
    """The first table knows the items' own colours, the other, which has few of them, the true ones."""
    probed = {
        "whole": {"probes": {"colour": said(0.6)}, "unprobed": ["size"]},
        "few": {"probes": {"size": said(0.3)}, "hidden_probes": {"colour": said(0.9)}, "unprobed": ["title"]},
    }
    made = probe_table(probed, dict.fromkeys(probed, "x.json"))
    assert made is not None
    assert [(attribute.name, attribute.hidden) for attribute in made.attributes] == [
        ("colour", False),
        ("size", False),
        ("colour", True),
    ]
    rows = {name: [(cell.text, cell.best) for cell in cells] for name, _, cells in made.rows}
    assert rows == {
        "whole": [("60.0", True), ("–", False), ("–", False)],
        "few": [("–", False), ("30.0", True), ("90.0", True)],
    }


def test_what_some_tables_were_probed_for_is_not_called_unprobed() -> None:
    probed = {
        "whole": {"probes": {"colour": said(0.6)}},
        "few": {"probes": {}, "unprobed": ["colour", "title"]},
    }
    made = probe_table(probed, dict.fromkeys(probed, "x.json"))
    assert made is not None
    assert made.notes[-1] == "not probed (texts, numbers, or too few items): title"


def test_probes_stand_on_the_page(results: Path, files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    tables = {}
    for name, more in PROBED.items():
        tables[name] = tmp_path / f"{name}.json"
        tables[name].write_text(json.dumps({**json.loads(files["tables"]["text"].read_text()), **more}))
    runs = {"bazaar": reporting_world.run_paths(results)}
    build(tmp_path / "x.html", Report(), runs, {}, results, tables={"bazaar": tables})
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    table = re.search(r'<table class="diagnostics probes sortable">(.*?)</table>', text, re.DOTALL)
    assert table is not None
    assert "material (hidden), 4 values" in table[1]
    assert table[1].count("<strong>") == 2
    assert "<strong>97.0</strong>" in table[1]
    assert table[1].count('<span class="tag">bound</span>') == 1
    assert EVIL not in text


def test_broken_diagnostics_are_named(tmp_path: Path, catalogue: Catalogue, files: dict[str, dict[str, Path]]) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(ArtifactError, match=r"t\.json: no such file; expected the diagnostics"):
        representations(catalogue, {"t": path}, {}, 10)
    path.write_text('{"dim": 3, "item": 4, "neighbours": {}}')
    with pytest.raises(ArtifactError, match=r"lacks the key 'items'; did you mean 'item'"):
        representations(catalogue, {"t": path}, {}, 10)
    with pytest.raises(ArtifactError, match="no map of items"):
        read_neighbours({"neighbours": {"1": [3]}}, path)
    with pytest.raises(ArtifactError, match="is of kind 'item_table', expected 'captions'"):
        captioned(catalogue, {"t": files["tables"]["text"].parents[1] / "tables" / "text.parquet"}, 3)


def test_thumbnails_are_as_large_as_asked(results: Path) -> None:
    root = str(results / "bazaar" / "raw" / "images")
    assert len(Pictures(root, 16).uri("001.png") or "") < len(Pictures(root).uri("001.png") or "") + 1
    assert np.array(_decoded(Pictures(root, 16).uri("001.png"))).shape == (16, 16, 3)


def _decoded(uri: str | None) -> Any:
    import base64
    import io

    from PIL import Image

    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def test_remarks_stand_beside_the_numbers(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    for path in sorted((tree / "bazaar/runs/semantic").rglob("metrics.json")):
        path.write_text(json.dumps({**json.loads(path.read_text()), "remarks": ["saw held-out <interactions>"]}))
    page = reporting_world.write_report(tree).read_text(encoding="utf-8")
    assert page.count('title="saw held-out &lt;interactions&gt;">see notes</span>') == 1
    assert "semantic: saw held-out &lt;interactions&gt;." in page
    files = reporting_world.metric_files(tree)
    table = collect("bazaar", files, reporting_world.ORDER, Evaluation(), Significance(resamples=1000))
    assert table.notes()[-1] == "semantic: saw held-out <interactions>"
    assert "semantic: saw held-out \\<interactions\\>." in formats.markdown(table)
    assert "saw held-out" in formats.latex(table)
    lines = formats.csv_text(table).splitlines()
    assert lines[0].endswith(",remarks")
    assert [line.endswith(",saw held-out <interactions>") for line in lines[1:]] == [False, False, False, True, False]
    long = table.long_form().to_pylist()
    assert {row["system"]: row["remarks"] for row in long if row["remarks"]} == {
        "semantic": "saw held-out <interactions>"
    }
    before = reporting_world.metric_files(results)
    plain = collect("bazaar", before, reporting_world.ORDER, Evaluation(), Significance(resamples=1000))
    assert "remarks" not in formats.csv_text(plain)


def test_the_page_works_without_tables_and_captions(results: Path, tmp_path: Path) -> None:
    runs = {"bazaar": reporting_world.run_paths(results)}
    build(tmp_path / "x.html", Report(explorer_users=0), runs, {}, results, tables={"bazaar": {}}, embedders={})
    text = (tmp_path / "x.html").read_text()
    assert "Item tables" not in text
    assert "Captions" not in text
    assert "application/json" not in text
