"""Which runs differ in what they lost alone, by what their evaluations recorded, and the plot of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reporting_world import ORDER, metric_files

from tessera.artifacts.files import read_json, write_json
from tessera.reporting.missing import by_missing, missing_lines
from tessera.reporting.ranking import RankingTable, load
from tessera.reporting.ranking_runs import RankingRun
from tessera.reporting.runs import Entry
from tessera.settings.missing import Missing


def entry(system: str, lost: dict[str, Any] | None = None, apart: str = "same", *more: str) -> Entry[RankingRun]:
    """Seeds of a system: one, and one more for every further text of what they are apart from losses."""
    runs = tuple(
        RankingRun(
            path=Path(system, str(seed)), system=system, recommender="sasrec", seed=seed,
            users=1, metrics={}, groups={}, protocol="full", test_users=1, cold_share=0.0, repeat_share=0.0,
            missing=Missing.model_validate(lost) if lost else None, apart_from_losses=key,
        )
        for seed, key in enumerate((apart, *more))
    )  # fmt: skip
    return Entry(system, "sasrec", runs)


def test_systems_that_differ_in_losses_alone_make_a_line() -> None:
    entries = [
        entry("id", apart="ids"),
        entry("half", {"image": 0.5}),
        entry("whole"),
        entry("third", {"image": 0.3}, "same", "same"),
        entry("third_test", {"image": 0.3, "when": "test"}),
        entry("texts", {"text": 0.2}),
        entry("both", {"text": 0.4, "image": 0.4}),
        entry("either", {"pattern": "one_modality", "text": 0.4, "image": 0.4}),
        entry("uneven", {"text": 0.4, "image": 0.1}),
        entry("other", {"image": 0.5}, "other"),  # differs in more, and alone
        entry("mixed", {"image": 0.9}, "same", "other"),  # seeds of several settings
        entry("old", {"image": 0.7}, ""),  # judged before this was recorded
        entry("old_whole", None, ""),
    ]
    lines = missing_lines(entries)
    assert {title: [(share, e.system) for share, e in points] for title, points in lines.items()} == {
        "whole without pictures, item_consistent, sasrec": [(0.0, "whole"), (0.3, "third"), (0.5, "half")],
        "whole without pictures at test, item_consistent, sasrec": [(0.0, "whole"), (0.3, "third_test")],
        "whole without texts, item_consistent, sasrec": [(0.0, "whole"), (0.2, "texts")],
        "whole without pictures and texts, item_consistent, sasrec": [(0.0, "whole"), (0.4, "both")],
        "whole without a picture or a text, one_modality, sasrec": [(0.0, "whole"), (0.4, "either")],
    }
    assert missing_lines(entries[:3:2]) == {}


@pytest.fixture
def table(results: Path, tmp_path: Path) -> RankingTable:
    """The table of a world whose evaluations recorded that `semantic` is `id` without a few of the pictures."""
    files = []
    for path in metric_files(results):
        content = read_json(path)
        lost = {"image": 0.004, "text": 0.0, "when": "both", "seed": 0} if content["system"] == "semantic" else None
        content |= {"missing": lost, "apart_from_losses": f"one, {content['recommender']}"}
        files.append(tmp_path / "runs" / path.parent.relative_to(results / "bazaar" / "runs") / path.name)
        write_json(files[-1], content)
    return load(results / "tables" / "bazaar.parquet", files, ORDER)


def test_the_plot_holds_the_means_of_the_table(table: RankingTable, results: Path) -> None:
    plot = by_missing(table, "NDCG@10")
    assert plot is not None
    values = {entry.name: table.mean(entry, "NDCG@10") for entry in table.entries}
    expected = [
        f"id without pictures, item_consistent, sasrec: {share} lost, NDCG@10 {values[name]:.4f} (seeds 1, 2, 3)"
        for share, name in (("0%", "id/sasrec"), ("0.4%", "semantic/sasrec"))
    ]
    assert plot.description.split("; ") == expected  # the other backbone has one point, which is no line
    assert all(re.search(re.escape(line), plot.svg) for line in expected)
    unrecorded = load(results / "tables" / "bazaar.parquet", metric_files(results), ORDER)
    assert by_missing(unrecorded, "NDCG@10") is None


def test_points_of_a_line_are_of_the_same_seeds(table: RankingTable) -> None:
    ids = next(entry for entry in table.entries if entry.name == "id/sasrec")
    entries = [replace(e, runs=e.runs[:1]) if e.name == "semantic/sasrec" else e for e in table.entries]
    plot = by_missing(replace(table, entries=entries), "NDCG@10")
    assert plot is not None
    first = (
        f"id without pictures, item_consistent, sasrec: 0% lost, NDCG@10 {ids.runs[0].metrics['NDCG@10']:.4f} (seed 1)"
    )
    assert plot.description.split("; ")[0] == first
