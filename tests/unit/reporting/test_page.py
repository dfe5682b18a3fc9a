"""The report page as text: complete, escaped, without a network, the same every time."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import reporting_world
from reporting_world import EVIL, EVIL_USER

from tessera.artifacts.tables import ArtifactError
from tessera.reporting import plots, table_plots
from tessera.reporting.ranking import load
from tessera.reporting.ranking_page import build, epochs
from tessera.reporting.tables import Column
from tessera.settings.reporting import Report


class Reader(HTMLParser):
    """Which elements a page has, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    return (results / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_data_is_text_never_markup(page: str, read: Reader) -> None:
    scripts = [attributes.get("type") for tag, attributes in read.found if tag == "script"]
    assert scripts == ["application/json"] * 4 + [None]  # explorer, tree, pairs of systems, map; and the one program
    assert not any(name.startswith("on") for _, attributes in read.found for name in attributes)
    assert EVIL in read.text
    assert EVIL not in page
    assert all((a["src"] or "").startswith("data:image/") for tag, a in read.found if tag == "img")


def test_user_ids_are_escaped(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    build(tree / "page.html", Report(sample_users=80), {"bazaar": reporting_world.run_paths(tree)}, {}, tree)
    text = (tree / "page.html").read_text()
    assert EVIL_USER not in text
    assert EVIL_USER in unescape(text)


def test_nothing_is_fetched(page: str, read: Reader) -> None:
    # the only addresses are names of XML namespaces
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    links = [a.get("href") or "" for tag, a in read.found if tag in ("a", "link")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "default-src 'none'" in page


def test_every_part_is_there(read: Reader) -> None:
    for part in ("Results", "Cleaning", "Rejected rows", "no <user>", "History lengths", "Item popularity", "Run time"):
        assert part in read.text, part
    for plot in ("NDCG@10 by run", "by popularity", "by history length", "Training: loss", "validation NDCG@10"):
        assert plot in read.text, plot
    assert "660 MiB" in read.text  # the larger of the two training jobs
    assert "1 min 00 s" in read.text
    assert "no picture" in read.text


def test_accessible_names(read: Reader) -> None:
    assert all(a.get("alt") for tag, a in read.found if tag == "img")
    levels = [int(tag[1]) for tag, _ in read.found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in read.found if "id" in a]
    assert len(ids) == len(set(ids))


def test_contents_lead_to_every_heading_of_a_section(page: str, read: Reader) -> None:
    ids = {a["id"] for _, a in read.found if "id" in a}
    links = {(a["href"] or "")[1:] for tag, a in read.found if tag == "a"}
    assert links - {"content"} <= ids
    headings = {a.get("id") for tag, a in read.found if tag in ("h3", "h4")} - {"rules", "versions"}
    assert {heading for heading in headings if heading} <= links
    assert {"d-1-verdict", "d-1-results", "d-1-wins", "d-1-tables", "d-1-data"} <= links
    assert "<!--contents" not in page


def test_the_same_artifacts_give_the_same_page(results: Path, page: str, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    # pictures are found through the image_root of the first tree
    assert reporting_world.write_report(tree).read_text(encoding="utf-8") == page


def test_plots_for_papers_have_plain_colours(results: Path) -> None:
    files = sorted((results / "report" / "plots" / "bazaar").glob("*.svg"))
    assert {file.stem for file in files} >= {"by-run", "by-history-length", "training-loss"}
    assert all("var(" not in file.read_text() for file in files)


def test_a_written_table_reads_back(results: Path) -> None:
    files = reporting_world.metric_files(results)
    table = load(results / "tables" / "bazaar.parquet", files, reporting_world.ORDER)
    assert table.baseline is not None
    assert table.baseline.name == "id/sasrec"
    assert table.comparisons == 27
    assert table.cells["semantic/sasrec", Column("NDCG@10")].significant == "up"
    some = [path for path in files if "/semantic/" not in str(path)]
    with pytest.raises(ArtifactError, match="tells of semantic/sasrec, which is not among the runs"):
        load(results / "tables" / "bazaar.parquet", some, reporting_world.ORDER)


def test_unknown_main_metric_is_named(results: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"report.main_metric: no run of 'bazaar' has 'NDCG@11'; did you mean 'NDCG@10'"
    ):
        build(
            tmp_path / "x.html",
            Report(main_metric="NDCG@11"),
            {"bazaar": reporting_world.run_paths(results)},
            {},
            results,
        )


def test_missing_and_broken_inputs_are_named(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    runs = {"bazaar": reporting_world.run_paths(tree)}
    history = tree / "bazaar/runs/id/sasrec/seed-1/history.jsonl"
    history.write_text('{"epoch": 1, "loss"')
    with pytest.raises(ArtifactError, match=r"seed-1/history.jsonl: not JSON lines"):
        build(tmp_path / "x.html", Report(), runs, {}, tree)
    (tree / "bazaar/data/stats.json").unlink()
    with pytest.raises(ArtifactError, match=r"stats.json: no such file"):
        build(tmp_path / "x.html", Report(), runs, {}, tree)
    assert not (tmp_path / "x.html").exists()


def test_a_page_without_samples_pictures_benchmarks_or_curves(results: Path, tmp_path: Path) -> None:
    tree = tmp_path / "results"
    shutil.copytree(results, tree)
    shutil.rmtree(tree / "benchmarks")
    (tree / "report" / "rulegraph.mmd").unlink()
    for path in tree.rglob("history.jsonl"):
        path.unlink()
    stats = json.loads((tree / "bazaar/data/stats.json").read_text())
    stats |= {"rejected": {"rows": 0, "share": 0.0, "reasons": {}}, "period": None, "tie_share": None}
    (tree / "bazaar/data/stats.json").write_text(json.dumps(stats))
    report = Report(sample_items=0, sample_users=0)
    build(tree / "x.html", report, {"bazaar": reporting_world.run_paths(tree)}, {}, tree)
    text = (tree / "x.html").read_text()
    assert "No benchmark files" in text
    assert "Training:" not in text


def test_a_report_needs_no_torch() -> None:
    program = (
        "import sys, tessera.reporting.ranking_page, tessera.evaluation.significance; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_epochs_of_phases_go_on_and_a_warm_start_is_epoch_0() -> None:
    def numbers(*counted: int) -> list[int]:
        return [epoch for epoch, _ in epochs([{"epoch": number, "loss": 1.0} for number in counted])]

    assert numbers(1, 2, 3) == [1, 2, 3]
    assert numbers(0, 1, 2) == [0, 1, 2]
    assert numbers(1, 2, 1, 2, 3) == [1, 2, 3, 4, 5]
    assert [epoch for epoch, _ in epochs([{"step": 5}, {"epoch": 1}])] == [1]
    assert numbers() == []


def test_no_two_series_look_the_same() -> None:
    names = [f"run {number}" for number in range(60)]
    looks = list(zip(plots.colours(names).range, plots.shapes(60), strict=True))
    assert len(set(looks)) == 60
    assert plots.shapes(8) == plots.SHAPES, "few are told apart by both"


def test_curves_of_embedders_go_on_over_their_phases() -> None:
    history = [{"phase": phase, "step": step, "loss": 5.0 - step} for phase in "ab" for step in (1, 2, 3)]
    (plot,) = table_plots.embedder_curves({"moca": history})
    assert [step for step, _ in table_plots._onward(history)] == [1, 2, 3, 4, 5, 6]
    thin = [{"phase": "a", "step": 30}, {"phase": "b", "step": 50}, {"phase": "b", "step": 100}]
    assert [step for step, _ in table_plots._onward(thin)] == [30, 80, 130]
    assert plot.description == "moca ends at 2.0000"
