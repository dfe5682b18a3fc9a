"""The metric table of systems that rank the next item: per-user metrics, tested pairwise over users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from tessera.artifacts.logs import log
from tessera.artifacts.tables import describe
from tessera.evaluation.cold import AMONG_ALL, AMONG_COLD, KIND, SHOWN
from tessera.evaluation.groups import repeat_warning
from tessera.evaluation.metrics import protocol_suffix
from tessera.evaluation.shifted import NATURAL, SHIFTED, Shifts, drop_of, sentence
from tessera.evaluation.significance import LEAST_USERS, enough_resamples, least_p, p_values, told_p
from tessera.reporting.ranking_runs import (
    RankingRun,
    UserMetrics,
    check_same_users,
    cold_metrics,
    counted,
    entries,
    user_metrics,
)
from tessera.reporting.runs import Array, Entry, baselines_of, few_users_warning, label
from tessera.reporting.tables import Column, Key, Metric, Table
from tessera.settings.evaluation import Evaluation, Significance


@dataclass(kw_only=True)
class RankingTable(Table[RankingRun]):
    """The results of systems under recommenders."""

    protocol: str
    evaluation: Evaluation
    significance: Significance
    shifts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is told of each test set that differs from training, by its name."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("Hit"),
        Metric("NDCG"),
        Metric("MRR"),
        Metric("coverage"),
        Metric("gini", better="smaller"),
        Metric("popularity", better="smaller", digits=2),  # counts interactions
        # in percent; who starts low has little to lose, so the smallest is not the best
        Metric(drop_of("NDCG"), better="neither", digits=1),
    )

    @property
    def cold_share(self) -> float:
        """Share of the test users whose target has no training interaction."""
        return self.judged.cold_share

    @property
    def cold(self) -> dict[str, dict[str, Any]]:
        """The groups of cold targets, with their numbers and what chance gives; empty where there is none."""
        return self.judged.groups.get(KIND, {})

    @property
    def cold_columns(self) -> list[Column]:
        """The columns of cold targets, where there are enough of them: among all items, and among cold ones."""
        if self.cold.get(AMONG_ALL, {}).get("users", 0) < SHOWN:
            return []
        hit = self.main.replace("NDCG", "Hit")
        return [Column(metric, KIND, group) for group in (AMONG_ALL, AMONG_COLD) for metric in (hit, self.main)]

    def shifted_users(self, name: str, kind: str = SHIFTED) -> int:
        """How many users stand behind the numbers of a test set that differs from training, or of the one beside it."""
        counts = (self.cell(entry, Column(self.main, kind, name)) for entry in self.entries if not entry.is_oracle)
        return max((cell.count or 0 for cell in counts if cell is not None), default=0)

    def _least_users(self, name: str) -> int:
        """The users of the smaller of the two sets."""
        return min(self.shifted_users(name), self.shifted_users(name, NATURAL))

    @property
    def apart(self) -> list[Column]:
        """Test sets unlike training, where both have enough users: the main metric beside them and there, its drop."""
        shown = [name for name in self.shifts if self._least_users(name) >= SHOWN]
        parts = ((self.main, NATURAL), (self.main, SHIFTED), (drop_of(self.main), SHIFTED))
        return self.filled([Column(metric, kind, name) for name in shown for metric, kind in parts])

    @property
    def repeats(self) -> int:
        """Test users whose target stands in their own history."""
        return round(self.judged.repeat_share * self.judged.test_users)

    @property
    def main(self) -> str:
        """The metric of the head and tail columns: NDCG@10, or at the last cut-off where 10 is not one."""
        cutoffs = self.evaluation.cutoffs
        return f"NDCG@{10 if 10 in cutoffs else cutoffs[-1]}"

    @property
    def columns(self) -> list[Column]:
        """Hits and NDCG at every cut-off, MRR, head and tail, coverage, cold targets, sets unlike training."""
        shown = [Column(f"{metric}@{k}") for metric in ("Hit", "NDCG") for k in self.evaluation.cutoffs]
        shown += [Column("MRR"), *(Column(f"MRR@{k}") for k in self.evaluation.mrr_cutoffs)]
        shown += [Column(self.main, "popularity", "head"), Column(self.main, "popularity", "tail")]
        shown += sorted({c for _, c in self.cells if not c.kind and c.metric.startswith("coverage@")}, key=str)
        everybody = {n for n in self.shifts if self.shifted_users(n, NATURAL) == self.judged.users}
        unlike = [column for column in self.apart if column.kind != NATURAL or column.group not in everybody]
        return self.filled([*shown, *self.cold_columns, *unlike])

    def leading(self, main: str) -> list[Column]:
        """The main metric, overall, of head and of tail; hits at its cut-off, MRR, coverage."""
        beside = (f"Hit@{main.partition('@')[2]}", "MRR", f"coverage@{main.partition('@')[2]}")
        shown = [Column(main), *(Column(self.main, "popularity", group) for group in ("head", "tail"))]
        return self.filled(dict.fromkeys([*shown, *map(Column, beside)]))

    def header(self, column: Column) -> str:
        """What stands over a column, with the protocol where targets are ranked by another than the full one."""
        if column.metric == drop_of(self.main):
            return f"{column.group} drop in %"
        text = f"{column.metric} beside {column.group}" if column.kind == NATURAL else super().header(column)
        return text + ("" if column.group == AMONG_COLD else protocol_suffix(column.metric, self.protocol))

    def identity(self, entry: Entry[RankingRun]) -> dict[str, str]:
        """System and recommender."""
        return {"system": entry.system, "recommender": entry.recommender}

    def labels(self, entry: Entry[RankingRun]) -> dict[str, str]:
        """System and recommender; the oracle has none."""
        return {"system": entry.system, "recommender": "" if entry.is_oracle else entry.recommender}

    def shared(self) -> dict[str, str]:
        """The protocol."""
        return {"protocol": self.protocol}

    def facts(self, entry: Entry[RankingRun]) -> dict[str, str | int]:
        """The test users that count, and the share of all whose target stands in their own history."""
        run = entry.runs[0]
        return {"test users": run.users, "repeated targets": f"{run.repeat_share:.6g}"}

    def least_p(self) -> float:
        """See `Table.least_p`; of the tested columns that of most users has the one that resamples need."""
        users = [cell.count for cell in self.cells.values() if cell.p is not None and cell.count is not None]
        return least_p(self.significance, self.comparisons, max(users)) if self.comparisons and users else 0.0

    def over_seeds(self, entry: Entry[RankingRun], column: Column) -> float:
        """See `Table.over_seeds`; a drop is that between the means: one seed's may divide by almost nothing."""
        if column.metric != drop_of(self.main):
            return super().over_seeds(entry, column)
        here, there = (entry.values(self.main, kind, column.group).mean() for kind in (SHIFTED, NATURAL))
        return float(100 * (1 - here / there))

    def settings(self) -> dict[str, Any]:
        """Of judge and tests."""
        return {
            "evaluation": self.evaluation.model_dump(mode="json"),
            "significance": self.significance.model_dump(mode="json"),
            "bounds": sorted(self.bounds),
            "remarks": {entry.name: list(entry.more) for entry in self.entries if entry.more},
        }

    def kept(self) -> dict[str, Any]:
        """What is told of the test sets that differ from training."""
        return {"shifts": self.shifts} if self.shifts else {}

    def warnings(self) -> list[str]:
        """Too few users, and targets that nothing can hit."""
        warnings = [repeat_warning(self.repeats, self.judged.test_users, self.evaluation)]
        if self.cold_columns:
            warnings.append(few_users_warning(self.cold[AMONG_ALL]["users"], " with a cold target"))
        for name in self.shifts:
            warnings.append(few_users_warning(self.shifted_users(name), f" in {name}"))
            warnings.append(few_users_warning(self.shifted_users(name, NATURAL), f" beside {name}"))
        return [*super().warnings(), *filter(None, warnings)]

    def conditions(self) -> list[str]:
        """Users, candidates, masks, ties, cold and repeated targets, seeds, tests, the oracle."""
        rule = self.evaluation
        cold = {"miss": "counted as misses", "drop": "left out", "rank": "ranked as scored"}[rule.cold_targets]
        users, everyone, repeats = self.judged.users, self.judged.test_users, self.repeats
        repeated = {"miss": "counted as misses", "drop": "left out", "unmasked": "nothing masked for them"}
        alike = not rule.mask_seen and rule.repeat_targets != "drop"
        with_seen = rule.candidates.kind == "sampled" and not rule.mask_seen
        target = "the target, the user's own history" if with_seen else "the target"
        ranking = "full catalogue" if self.protocol == "full" else f"{target} and {self.protocol} negatives"
        counted = f"{users:,} test users" if users == everyone else f"{users:,} of {everyone:,} test users"
        conditions = [
            counted + self._drawn(),
            f"ranked: {ranking}",
            "items of the user's own history masked" if rule.mask_seen else "seen items not masked",
            f"ties: {'middle rank' if rule.ties == 'mean' else 'worst rank'}",
            f"cold targets ({self.cold_share:.1%} of the test users): {cold}",
            f"targets in the user's own history ({repeats:,}, {self.judged.repeat_share:.1%}): "
            + ("ranked like others" if alike else repeated[rule.repeat_targets]),
            self.told_seeds(),
        ]
        conditions += self._cold_conditions()
        conditions += [
            sentence(name, facts, self.shifted_users(name), self.shifted_users(name, NATURAL))
            for name, facts in self.shifts.items()
        ]
        if self.baseline is not None and self.comparisons:
            test = {
                "randomization": "paired randomisation",
                "bootstrap": "paired bootstrap",
                "t_test": "paired t-test",
            }[self.significance.method]
            resamples = enough_resamples(self.significance, self.comparisons)
            one = len(self.baselines) == 1
            against = label(self.baseline) if one else f"{self.baseline.system} under the same recommender"
            against += self._without_own_baseline()
            least = self.least_p()
            drawn = "" if self.significance.method == "t_test" else f", {resamples:,} resamples"
            drawn += (
                "" if self.significance.method == "randomization" else f", of fewer than {LEAST_USERS} users all signs"
            )
            drawn += f", which tell no {told_p(0.0, least).replace('≤', 'below')}" if least else ""
            conditions.append(
                f"* better (↑) or worse (↓) than {against}: {test} over users{drawn}, "
                f"p ≤ {self.significance.level:g} after Holm's correction of {self.comparisons} comparisons"
            )
        if any(entry.is_oracle for entry in self.entries):
            judged = next(entry for entry in self.entries if entry.is_oracle).runs[0].users
            everyone = max(run.users for entry in self.entries for run in entry.runs)
            part = f", known for {judged:,} of {everyone:,} users" if judged < everyone else ""
            conditions.append(f"oracle: the process that made the data, a bound rather than a competitor{part}")
        return conditions

    def _without_own_baseline(self) -> str:
        """Which rows have no baseline under their own recommender, and so are compared with the first one."""
        others = [label(entry) for entry, base in self.rivals if base.recommender != entry.recommender]
        if len(self.baselines) < 2 or not others or self.baseline is None:
            return ""
        return f" ({', '.join(others)}: than {label(self.baseline)})"

    def _drawn(self) -> str:
        """From how many test users those of the table were drawn."""
        everyone = self.judged.drawn_from
        if everyone is None or everyone == self.judged.test_users:
            return ""
        seed = self.evaluation.test_users_seed
        return f", drawn at random from {everyone:,} (seed {seed}), the same for every system"

    def _cold_conditions(self) -> list[str]:
        """How many cold targets there are, and what an order by chance would give them."""
        if not self.cold_columns:
            return []
        by_chance = []
        among_all = "the whole catalogue" if self.protocol == "full" else f"the target and {self.protocol} negatives"
        for group, where in ((AMONG_ALL, among_all), (AMONG_COLD, "cold items alone")):
            content = self.cold[group]
            given = ", ".join(f"{c.metric} {content['chance'][c.metric]:.4f}" for c in self.cold_columns[:2])
            by_chance.append(f"{given} among {where} ({content['candidates']:,.0f} ranked on average)")
        users = self.cold[AMONG_ALL]["users"]
        return [
            f"cold: the {users:,} users whose target has no training interaction, ranked as scored; chance would give "
            + "; ".join(by_chance)
        ]


def bare_table(
    dataset: str,
    runs: Sequence[str | Path],
    order: Sequence[str],
    evaluation: Evaluation,
    significance: Significance,
    bounds: Iterable[str],
    remarks: Mapping[str, Sequence[str]],
) -> RankingTable:
    """The rows without their numbers, the bounds last."""
    knowing = frozenset(bounds)
    rows = sorted(entries(runs, order), key=lambda entry: (entry.is_oracle, entry.system in knowing))
    rows = [replace(entry, more=tuple(remarks.get(entry.name, ()))) for entry in rows]
    if not rows:
        raise ValueError(f"{dataset}: there is no run to put into a table")
    protocol = rows[0].runs[0].protocol
    return RankingTable(
        dataset, rows, [], bounds=knowing, protocol=protocol, evaluation=evaluation, significance=significance
    )


def collect(
    dataset: str,
    runs: Sequence[str | Path],
    order: Sequence[str],
    evaluation: Evaluation,
    significance: Significance,
    bounds: Iterable[str] = (),
    remarks: Mapping[str, Sequence[str]] = MappingProxyType({}),
    shifts: str | Path | None = None,
) -> RankingTable:
    """Read the runs of a dataset, average over seeds, test against the baseline and mark the best.

    Args:
        runs: paths of metrics.json, evaluation.parquet beside each.
        order: names `system/recommender` in the order of the rows.
        bounds: systems that know the hidden truth, besides the oracle.
        remarks: what is to be said of rows beside what their runs say, by `system/recommender`.
        shifts: the test sets that differ from training; None where there are none.
    Raises:
        ValueError: no run, an unknown baseline, mixed protocols, different test users, or none that counts.
    """
    table = bare_table(dataset, runs, order, evaluation, significance, bounds, remarks)
    sets = Shifts(shifts) if shifts is not None else None
    if sets is not None:
        table.shifts = sets.facts
        table.entries = [_with_shifts(entry, table, sets) for entry in table.entries]
    # a bound is a baseline only where it is named
    rows = table.entries if significance.baseline else table.competitors
    table.baselines = baselines_of(rows, significance.baseline)
    if not table.judged.users:
        raise ValueError(
            f"{dataset}: none of its {table.judged.test_users:,} test users counts: evaluation.repeat_targets: "
            f"{evaluation.repeat_targets} and cold_targets: {evaluation.cold_targets} leave all of them out"
        )
    table.average()
    for warning in table.warnings():  # what they count stands in cells
        log.warning("%s: %s", dataset, warning)
    table.mark_best()
    _compare(table, sets)
    return table


def _with_shifts(entry: Entry[RankingRun], table: RankingTable, sets: Shifts) -> Entry[RankingRun]:
    """An entry whose runs also have the groups of the test sets that differ from training."""
    runs = []
    for run in entry.runs:
        users, ranks = counted(run, table.evaluation)
        groups = sets.groups(users.column("user").to_numpy(), ranks, table.evaluation, table.main)
        runs.append(replace(run, groups=run.groups | groups))
    return replace(entry, runs=tuple(runs))


def of_job(runs: Sequence[str | Path], settings: Mapping[str, Any], shifts: str | Path | None = None) -> RankingTable:
    """The table of a job, whose settings came as JSON; `shifts` are the test sets that differ from training."""
    evaluation = Evaluation.model_validate(settings["evaluation"])
    significance = Significance.model_validate(settings["significance"])
    remarks = {name: [remark] for name, remark in settings.get("remarks", {}).items()}
    bounds = settings["bounds"]
    return collect(settings["dataset"], runs, settings["order"], evaluation, significance, bounds, remarks, shifts)


def load(path: str | Path, runs: Sequence[str | Path], order: Sequence[str]) -> RankingTable:
    """A written table back from its long form: the tests are not made again.

    Args:
        runs: paths of the metrics.json that the table was made from.
        order: names `system/recommender` in the order of the rows.
    Raises:
        ArtifactError: the file is missing, is of another kind, or tells of runs that are not given.
    """
    about = describe(path)
    made = about["settings"]
    evaluation = Evaluation.model_validate(made["evaluation"])
    significance = Significance.model_validate(made["significance"])
    table = bare_table(made["dataset"], runs, order, evaluation, significance, made["bounds"], made["remarks"])
    table.shifts = about.get("shifts", {})
    table.read(path)
    return table


def _tested(judged: UserMetrics, table: RankingTable) -> dict[Column, Array]:
    """(n,) values a tested column; users outside the column's group hold NaN."""
    columns = {Column(metric): values for metric, values in judged.values.items()}
    for group, members in (("head", judged.head), ("tail", ~judged.head)):
        if members.any():
            columns[Column(table.main, "popularity", group)] = np.where(members, judged.values[table.main], np.nan)
    return columns


def _tested_shifts(judged: UserMetrics, table: RankingTable, sets: Shifts | None) -> dict[Column, Array]:
    """(n,) values of the printed columns of sets that differ from training; users outside of a set hold NaN."""
    columns = {}
    for column in table.apart if sets is not None else []:
        if column.kind == SHIFTED and column.metric == table.main and sets is not None:
            chosen, _ = sets.of(column.group, judged.users)
            columns[column] = np.where(chosen, judged.values[table.main], np.nan)
    return columns


def _tested_cold(entry: Entry[RankingRun], table: RankingTable) -> dict[Column, Array]:
    """(users with a cold target,) values of the printed columns of cold targets."""
    if not table.cold_columns:
        return {}
    values = cold_metrics(entry, table.evaluation)
    return {column: values[column.group][column.metric] for column in table.cold_columns}


def _compare(table: RankingTable, sets: Shifts | None) -> None:
    """Paired tests of every printed per-user column of every entry; one Holm family for the table."""
    rivals = table.rivals
    if not rivals:
        return
    bases = {base.name: user_metrics(base, table.evaluation) for base in table.baselines}
    users = min(len(base.users) for base in bases.values())
    if users < 2:
        log.info("%s: %d test user(s), too few for a test of significance", table.dataset, users)
        return

    def tested(entry: Entry[RankingRun], judged: UserMetrics) -> dict[Column, Array]:
        return _tested(judged, table) | _tested_cold(entry, table) | _tested_shifts(judged, table, sets)

    against = {base.name: tested(base, bases[base.name]) for base in table.baselines}
    differences: dict[Key, Array] = {}
    for entry, base in rivals:
        judged = user_metrics(entry, table.evaluation)
        check_same_users(entry, judged, base, bases[base.name])
        for column, values in tested(entry, judged).items():
            differences[entry.name, column] = values - against[base.name][column]
    keys = list(differences)
    p = np.ones(len(keys))
    # columns over the same users share their resamples
    for kind, group in sorted({(c.kind, c.group) for _, c in keys}):
        chosen = [n for n, (_, c) in enumerate(keys) if (c.kind, c.group) == (kind, group)]
        values = np.stack([differences[keys[n]] for n in chosen], axis=1)
        values = values[~np.isnan(values[:, 0])]
        if len(values) > 1:
            p[chosen] = p_values(values, table.significance, len(keys))
    means = [float(np.nanmean(differences[key])) for key in keys]
    table.correct(keys, means, p.tolist(), table.significance.level)
