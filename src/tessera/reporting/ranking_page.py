"""What the report page says of systems that rank the next item: a section a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tessera.artifacts.files import read_json
from tessera.artifacts.shown import one_line, visible
from tessera.artifacts.tables import ArtifactError
from tessera.reporting import claims, plots, robustness
from tessera.reporting.atlas import atlas_data
from tessera.reporting.codes import SemanticIdSection, semantic_ids
from tessera.reporting.missing import by_missing
from tessera.reporting.page import NOT_TOLD, Made, write_page
from tessera.reporting.plots import Plot
from tessera.reporting.ranking import RankingTable, load
from tessera.reporting.ranking_comparison import OUTSIDE, RankingComparison, compare
from tessera.reporting.ranking_runs import RankingRun
from tessera.reporting.representations import COLUMNS, Captioned, Files, Representations, captioned, representations
from tessera.reporting.run_costs import RunCost
from tessera.reporting.runs import Entry, label, read_history
from tessera.reporting.samples import Catalogue, ItemCard, UserCard, sample_items, sample_users
from tessera.reporting.search import HEADS as SEARCH_HEADS
from tessera.reporting.search import SearchSection, search_section
from tessera.reporting.side_by_side import side_by_side
from tessera.reporting.user_vectors import VectorSection, user_vectors
from tessera.reporting.verdict import Verdict, costs_of, verdict
from tessera.settings.base import did_you_mean
from tessera.settings.reporting import Report


@dataclass(frozen=True)
class Section:
    """Everything the page says of one dataset."""

    name: str
    table: RankingTable
    verdict: Verdict | None
    compared: RankingComparison | None
    claims: claims.ClaimTable | None
    search: SearchSection | None
    robustness: robustness.RobustnessTable | None
    rates: list[Plot]
    """Curves over the missing rate."""
    stats: dict[str, Any]
    plots: list[Plot]
    histograms: list[Plot]
    items: list[ItemCard]
    users: list[UserCard]
    leader: str
    """The run whose ranks chose the sample users."""
    pairs: str
    """JSON for the page's script: test users under two systems side by side; empty where there is none."""
    vectors: VectorSection | None
    """What the vectors of users stand for, where some system has several a user."""
    representations: Representations | None
    codes: SemanticIdSection | None
    captions: Captioned | None
    map: str
    """JSON for the page's script; empty where there are no maps."""
    broken_pictures: list[str]
    """`name: reason` of those that would be shown."""

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        return self.verdict.summary if self.verdict else ""

    @property
    def drawn(self) -> list[Plot]:
        """All of its plots, for files of their own."""
        tables = self.representations.plots if self.representations else []
        search = [self.search.plot] if self.search and self.search.plot else []
        return [*self.plots, *self.rates, *search, *tables, *(self.codes.plots if self.codes else [])]


def build(
    output: str | Path,
    report: Report,
    runs: Mapping[str, Sequence[str]],
    config: Mapping[str, Any],
    results: str | Path = "results",
    *,
    tables: Mapping[str, Files] | None = None,
    captions: Mapping[str, Files] | None = None,
    embedders: Mapping[str, Files] | None = None,
    codes: Mapping[str, Files] | None = None,
    health: Mapping[str, Files] | None = None,
    atlas: Mapping[str, Files] | None = None,
    made: Made = NOT_TOLD,
) -> None:
    """Write the page, and each of its plots to `plots/<dataset>/` beside it.

    Args:
        runs: dataset -> `system/recommender/seed-N`, in the order of the tables.
        config: the whole config, shown as it is but for passwords in URLs and texts of great length.
        results: the folder of all artifacts.
        tables: dataset -> item table -> its diagnostics (JSON).
        captions: dataset -> caption recipe -> its Parquet file.
        embedders: dataset -> item table -> history.jsonl of its embedder.
        codes: dataset -> recipe of semantic IDs -> its codes (Parquet).
        health: dataset -> recipe of semantic IDs -> what was measured of them (JSON).
        atlas: dataset -> item table -> its map (Parquet).
        made: when, by which code and by which command.
    Raises:
        ValueError: an artifact is missing or is not what it should be.
    """
    results = Path(results)
    parts = [part or {} for part in (tables, captions, embedders, codes, health, atlas)]
    sections = [
        _section(results, name, paths, report, config, *(part.get(name, {}) for part in parts))
        for name, paths in runs.items()
    ]
    known = {
        "facts": _facts, "reasons": _reasons, "text_notes": text_notes, "table_columns": COLUMNS, "inf": math.inf,
        "search_heads": SEARCH_HEADS, "claim_heads": claims.HEADS, "claim_cells": claims.cells,
    }  # fmt: skip
    write_page(output, "ranking.html", report, sections, config, results, known, made)


def _section(
    results: Path,
    name: str,
    paths: Sequence[str],
    report: Report,
    config: Mapping[str, Any],
    tables: Files,
    captions: Files,
    embedders: Files,
    codes: Files,
    health: Files,
    atlas: Files,
) -> Section:
    data = results / name / "data"
    order = list(dict.fromkeys(path.rpartition("/")[0] for path in paths))
    metric_files = [results / name / "runs" / path / "metrics.json" for path in paths]
    table = load(results / "tables" / f"{name}.parquet", metric_files, order)
    known = {column.metric for _, column in table.cells if not column.kind}
    if report.main_metric not in known:
        hint = did_you_mean(report.main_metric, known)
        raise ValueError(f"report.main_metric: no run of {name!r} has {report.main_metric!r}{hint}")
    if not (data / "stats.json").is_file():
        raise ArtifactError(f"{data / 'stats.json'}: no such file; expected the counts of the dataset {name!r}")
    stats = read_json(data / "stats.json")
    catalogue = Catalogue(data)
    shown = _shown_entries(table, report.main_metric)
    costs = costs_of(table, results)
    compared = compare(table, report.main_metric)
    made = representations(catalogue, tables, embedders, report.explorer_items)
    explored = made.explored if made else frozenset()
    items = sample_items(catalogue, report.sample_items)
    users = sample_users(catalogue, data / "users.parquet", shown, report.sample_users)
    ids = semantic_ids(catalogue, codes, health, report.explorer_items, explored)
    file = results / "tables" / f"{name}-robustness.parquet"
    robust = robustness.load(file, metric_files, order) if config.get("robustness") is not None else None
    return Section(
        name=name,
        table=table,
        verdict=verdict(table, report.main_metric, compared, costs),
        compared=compared,
        stats=stats,
        claims=claims.read(results / "tables" / f"{name}-claims.parquet") if config.get("claims") else None,
        search=search_section(table, report.main_metric) if config.get("search") else None,
        robustness=robust,
        rates=robustness.by_rate(robust, report.main_metric) if robust is not None else [],
        plots=_plots(table, report.main_metric, compared, costs),
        histograms=_histograms(stats),
        items=items,
        users=users,
        leader=label(shown[-1]) if shown else "",
        pairs=side_by_side(
            catalogue, data / "users.parquet", table, report.main_metric, report.explorer_users, explored
        ),
        vectors=user_vectors(catalogue, data / "users.parquet", table, report.main_metric, report.sample_users),
        representations=made,
        codes=ids,
        captions=captioned(catalogue, captions, report.sample_items),
        map=atlas_data(catalogue, atlas, explored),
        broken_pictures=catalogue.pictures.tell_broken(),  # after all that shows pictures
    )


def _shown_entries(table: RankingTable, metric: str) -> list[Entry[RankingRun]]:
    """Whose recommendations are shown: the first heuristic, the baseline, and last the best of all."""
    real = table.competitors
    if not real:
        return []
    best = table.ranked(metric)[0]
    heuristic = next((entry for entry in real if entry.is_heuristic), None)
    wanted = [entry for entry in (heuristic, table.baseline) if entry is not None and entry is not best]
    return [*dict.fromkeys(wanted), best]


def epochs(history: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The epochs of a training with their numbers over all of its phases.

    Phases count theirs from one, or count steps: a line goes on where the one before it ended. What a training goes on
    from is judged as epoch 0.
    """
    lines = [line for line in history if "epoch" in line]
    yield from enumerate(lines, lines[0]["epoch"] if lines else 1)


def _plots(
    table: RankingTable, metric: str, compared: RankingComparison | None, costs: Mapping[str, RunCost]
) -> list[Plot]:
    curves: dict[str, dict[str, list[tuple[int, int, float]]]] = {"loss": {}, f"validation {metric}": {}}
    for entry in table.entries:
        for run in entry.runs:
            for epoch, line in epochs(read_history(run.path.with_name("history.jsonl"))):
                for key, field in (("loss", "loss"), (f"validation {metric}", metric)):
                    if line.get(field) is not None:
                        curves[key].setdefault(entry.name, []).append((run.seed, epoch, line[field]))
    drawn = [
        plots.by_run(table, metric, compared.intervals if compared else {}, OUTSIDE),
        *(plots.by_cost(table, metric, {name: vars(cost) for name, cost in costs.items()}, key) for key in plots.COSTS),
        plots.by_group(
            table,
            metric,
            "popularity_bins",
            "popularity",
            "bin of the target's train popularity, 1 = most",
            "by-popularity",
        ),
        plots.by_group(table, metric, "history", "history length", "items in the history", "by-history-length"),
        by_missing(table, metric),
        *(plots.training(table, metric, values, name) for name, values in curves.items()),
    ]
    return [plot for plot in drawn if plot is not None]


def _histograms(stats: Mapping[str, Any]) -> list[Plot]:
    lengths = {int(length): int(users) for length, users in stats.get("lengths", {}).items()}
    drawn = [plots.lengths(lengths), plots.popularity(stats.get("popularity", []), stats["counts"]["items"])]
    return [plot for plot in drawn if plot is not None]


def _facts(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The counts and shares of stats.json that a reader asks for first, in that order."""
    counts = stats["counts"]
    first = ("users", "items", "interactions", "train", "valid", "test")
    facts = [(name, f"{counts[name]:,}") for name in dict.fromkeys((*first, *counts)) if counts.get(name)]
    if stats.get("mean_length") is not None:
        facts.append(("mean history", f"{stats['mean_length']:.1f}"))
    if stats.get("density") is not None:
        facts.append(("density", f"{stats['density']:.3%}"))
    if stats.get("period"):
        facts.append(("period", _period(*stats["period"])))
    shares = {
        "title_share": "items with a title",
        "text_share": "items with text",
        "image_share": "items with a picture",
        "tie_share": "equal timestamps",
        "repeat_share": "repeated interactions",
        "cold_test_share": "cold test targets",
    }
    return facts + [(name, f"{stats[key]:.1%}") for key, name in shares.items() if stats.get(key) is not None]


def _period(first: float, last: float) -> str:
    """First and last day, or moment where both are of one day."""
    start, end = (datetime.fromtimestamp(seconds, UTC) for seconds in (first, last))
    if start.date() != end.date():
        return f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
    return f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S}"


def _reasons(rejected: Any) -> list[tuple[str, int]]:
    """Rejected rows by reason, most first."""
    reasons = rejected.get("reasons", rejected) if isinstance(rejected, Mapping) else {}
    pairs = [(visible(str(reason), 300), int(count)) for reason, count in reasons.items() if isinstance(count, int)]
    return sorted(pairs, key=lambda pair: -pair[1])


def text_notes(stats: Mapping[str, Any]) -> list[str]:
    """What became of item texts that were not plain, and the title that most items share."""
    texts = stats.get("texts") or {}
    outcomes = {"emptied": "nothing but markup or code, left empty", "changed": "lost markup", "cut": "cut"}
    notes = [
        f"{texts[f'{kind}_{key}']:,} {name}: {what}"
        for key, what in outcomes.items()
        for kind, name in (("titles", "titles"), ("texts", "other texts"))
        if texts.get(f"{kind}_{key}")
    ]
    common = stats.get("common_title")
    if common and common["share"] > 0.5:
        notes.append(f"{common['items']:,} items have the same title, “{one_line(common['title'], 80)}”")
    return notes
