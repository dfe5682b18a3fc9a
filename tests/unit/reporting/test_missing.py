"""Which systems differ in what they lost alone, and the plot of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from reporting_world import ORDER, metric_files

from tessera.reporting.missing import by_missing, missing_lines
from tessera.reporting.ranking import load

ITEMS = {"kind": "dual_view", "image": "i", "text": "t", "fine": "f"}


def system(missing: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {"items": {**ITEMS, **changes}, **({"missing": missing} if missing else {})}


def test_systems_that_differ_in_losses_alone_make_a_line() -> None:
    systems = {
        "id": {"items": "ids"},
        "table": {"items": {"table": "t"}},
        "half": {**system({"image": 0.5}), "backbones": ["sasrec"]},
        "whole": system(),
        "third": system({"image": 0.3, "when": "both"}),
        "third_test": system({"image": 0.3, "when": "test"}),
        "texts": system({"text": 0.2}),
        "both": system({"text": 0.4, "image": 0.4}),
        "uneven": system({"text": 0.4, "image": 0.1}),
        "other": system({"image": 0.5}, fusion="concat"),  # differs in more, and alone
        "other_loss": {**system({"image": 0.7}), "loss": {"kind": "bce"}},
    }
    assert missing_lines(systems) == {
        "whole without pictures": [(0.0, "whole"), (0.3, "third"), (0.5, "half")],
        "whole without pictures at test": [(0.0, "whole"), (0.3, "third_test")],
        "whole without texts": [(0.0, "whole"), (0.2, "texts")],
        "whole without pictures and texts": [(0.0, "whole"), (0.4, "both")],
    }
    assert missing_lines({"id": {"items": "ids"}, "whole": system()}) == {}


def test_the_plot_holds_the_means_of_the_table(results: Path) -> None:
    table = load(results / "tables" / "bazaar.parquet", metric_files(results), ORDER)
    plot = by_missing(table, "NDCG@10", {"id": system(), "semantic": system({"image": 0.5})})
    assert plot is not None
    values = {entry.name: table.mean(entry, "NDCG@10") for entry in table.entries}
    expected = [
        f"id without pictures, sasrec: {share} lost, NDCG@10 {values[name]:.4f} (seeds 1, 2, 3)"
        for share, name in (("0%", "id/sasrec"), ("50%", "semantic/sasrec"))
    ]
    assert plot.description.split("; ") == expected  # the other backbone has one point, which is no line
    assert all(re.search(re.escape(line), plot.svg) for line in expected)
    assert by_missing(table, "NDCG@10", {"id": {"items": "ids"}}) is None


def test_points_of_a_line_are_of_the_same_seeds(results: Path) -> None:
    table = load(results / "tables" / "bazaar.parquet", metric_files(results), ORDER)
    ids = next(entry for entry in table.entries if entry.name == "id/sasrec")
    entries = [replace(e, runs=e.runs[:1]) if e.name == "semantic/sasrec" else e for e in table.entries]
    systems = {"id": system(), "semantic": system({"image": 0.5})}
    plot = by_missing(replace(table, entries=entries), "NDCG@10", systems)
    assert plot is not None
    first = f"id without pictures, sasrec: 0% lost, NDCG@10 {ids.runs[0].metrics['NDCG@10']:.4f} (seed 1)"
    assert plot.description.split("; ")[0] == first
