"""Claims of a config, tested over users: differences, intervals, p-values and verdicts, as files and for the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tessera.artifacts.files import file_digest, write_text
from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import CLAIMS, describe, read_table, write_table
from tessera.evaluation.significance import (
    bootstrap_interval,
    detectable,
    enough_resamples,
    holm,
    least_p,
    p_values,
    told_p,
)
from tessera.reporting.formats import MOST, escape_markdown
from tessera.reporting.ranking_runs import RankingRun, check_same_users, cold_metrics, entries, user_metrics
from tessera.reporting.runs import Array, Entry
from tessera.settings.claims import Claim
from tessera.settings.evaluation import Evaluation, Significance

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
POWER = 0.8


@dataclass(frozen=True)
class Tested:
    """A claim and what became of it on one dataset."""

    dataset: str
    name: str
    better: str
    than: str
    metric: str
    at_least: float
    better_mean: float | None
    """None where no test user has such a target."""
    than_mean: float | None
    difference: float | None
    low: float | None
    """Interval of the difference, of this claim alone."""
    high: float | None
    p: float
    """That the difference is `at_least`."""
    p_holm: float
    least_p: float
    """The least corrected p that the resamples can tell; 0 of exact tests."""
    detectable: float | None
    """The smallest distance from `at_least` that a test of this family sees with a power of 80 %."""
    users: int
    better_seeds: int
    than_seeds: int
    verdict: str

    @property
    def told_p(self) -> str:
        """The corrected p as it is printed."""
        return told_p(self.p_holm, self.least_p)

    @property
    def told_difference(self) -> str:
        """The difference with its interval."""
        if self.difference is None:
            return ""
        interval = f" ({self.low:+.4f} to {self.high:+.4f})" if self.low is not None and self.high is not None else ""
        return f"{self.difference:+.4f}{interval}"

    @property
    def said(self) -> str:
        """What is claimed, in words."""
        by = f" by at least {self.at_least:g}" if self.at_least > 0 else ""
        worse = f"at most {-self.at_least:g} worse than" if self.at_least < 0 else "better than"
        return f"{self.better} is {worse} {self.than}{by} in {self.metric}"


@dataclass(frozen=True)
class ClaimTable:
    """All claims of a config on one dataset."""

    dataset: str
    claims: list[Tested]
    significance: Significance

    def notes(self) -> list[str]:
        """How the claims were tested: what a reader needs to judge the verdicts."""
        rule, count = self.significance, len(self.claims)
        test = {"randomization": "randomisation", "bootstrap": "bootstrap", "t_test": "t-test"}[rule.method]
        resamples = enough_resamples(rule, count)
        drawn = "" if rule.method == "t_test" else f" ({resamples:,} resamples)"
        return [
            f"paired {test} over users{drawn} of the difference less what is claimed; p after Holm's correction of "
            f"{count} claim{'' if count == 1 else 's'}; seeds averaged for each user",
            f"holds: above what is claimed with p ≤ {rule.level:g}; does not hold: below it with such a p; "
            "undecided: else",
            f"interval: {1 - rule.level:.0%} paired bootstrap over users, of each claim alone",
            f"smallest effect: (z(1 - {rule.level:g} / {2 * count}) + z({POWER:g})) s / √users, with s the standard "
            f"deviation of the differences over users: what this test would have seen four times in five",
        ]


def _row(rows: Sequence[Entry[RankingRun]], name: str) -> Entry[RankingRun]:
    """The row of a name; settings have made sure that there is one."""
    return next(entry for entry in rows if name in (entry.name, entry.system))


def _of_users(entry: Entry[RankingRun], claim: Claim, evaluation: Evaluation) -> Array:
    """(users,) the metric of each user that the claim asks for, averaged over the seeds."""
    metric, group = claim.measured
    if group.startswith("cold"):
        return cold_metrics(entry, evaluation)[group][metric]
    judged = user_metrics(entry, evaluation)
    values = judged.values[metric]
    return values[judged.head] if group == "head" else values[~judged.head] if group == "tail" else values


def judge_claims(
    dataset: str,
    runs: Sequence[str | Path],
    order: Sequence[str],
    claims: Sequence[Claim],
    evaluation: Evaluation,
    significance: Significance,
) -> ClaimTable:
    """Test every claim on the runs of a dataset; one Holm family.

    Args:
        runs: paths of metrics.json, evaluation.parquet beside each.
        order: names `system/recommender` in the order of the rows.
    Raises:
        ArtifactError: two rows were judged on different users.
    """
    rows = entries(runs, order)
    parts: list[tuple[Claim, Entry[RankingRun], Entry[RankingRun], Array, Array]] = []
    for claim in claims:
        one, other = _row(rows, claim.better), _row(rows, claim.than)
        check_same_users(one, user_metrics(one, evaluation), other, user_metrics(other, evaluation))
        parts.append((claim, one, other, _of_users(one, claim, evaluation), _of_users(other, claim, evaluation)))
    count = len(parts)
    p = np.ones(count)
    for number, (claim, _, _, mine, theirs) in enumerate(parts):
        if len(mine) > 1:
            p[number] = p_values(mine - theirs - claim.at_least, significance, count)[0]
    tested = [_tested(dataset, *part, p=one, corrected=both, significance=significance, count=count)
              for part, one, both in zip(parts, p.tolist(), holm(p).tolist(), strict=True)]  # fmt: skip
    return ClaimTable(dataset, tested, significance)


def _tested(
    dataset: str,
    claim: Claim,
    one: Entry[RankingRun],
    other: Entry[RankingRun],
    mine: Array,
    theirs: Array,
    p: float,
    corrected: float,
    significance: Significance,
    count: int,
) -> Tested:
    users, level = len(mine), significance.level
    mean_one = float(mine.mean()) if users else None
    mean_other = float(theirs.mean()) if users else None
    difference = float((mine - theirs).mean()) if users else None
    low = high = seen = None
    if users > 1:
        lows, highs = bootstrap_interval(mine - theirs, level, enough_resamples(significance, count), significance.seed)
        low, high = float(lows[0]), float(highs[0])
        seen = float(detectable(mine - theirs, level / count, POWER)[0])
    return Tested(
        dataset, claim.name, one.name, other.name, claim.metric, claim.at_least, mean_one, mean_other, difference, low,
        high, p, corrected, least_p(significance, count, users), seen, users, len(one.runs), len(other.runs),
        verdict(difference, corrected, claim.at_least, level),
    )  # fmt: skip


def verdict(difference: float | None, p: float, at_least: float, level: float) -> str:
    """What becomes of a claim: `holds`, `does not hold` or `undecided`.

    Both ways by the corrected p alone: the interval is of one claim, and of many some lie below by chance.

    Args:
        difference: of the means; None where there is no user.
        p: corrected, that the difference is `at_least`.
    """
    if difference is None or p > level or difference == at_least:
        return UNDECIDED
    return HOLDS if difference > at_least else FAILS


def of_job(runs: Sequence[str | Path], settings: Mapping[str, Any]) -> ClaimTable:
    """The claims of a job, whose settings came as JSON."""
    claims = [Claim.model_validate(claim) for claim in settings["claims"]]
    evaluation = Evaluation.model_validate(settings["evaluation"])
    significance = Significance.model_validate(settings["significance"])
    return judge_claims(settings["dataset"], runs, settings["order"], claims, evaluation, significance)


def write(table: ClaimTable, runs: Sequence[str | Path], paths: Mapping[str, str | Path]) -> None:
    """Write the claims as `parquet`, `csv` and `md`."""
    long = pa.Table.from_pylist([vars(claim) for claim in table.claims], CLAIMS)
    inputs = {str(Path(run).parent): file_digest(Path(run).with_name(RankingRun.JUDGED)) for run in runs}
    settings = {"dataset": table.dataset, "significance": table.significance.model_dump(mode="json")}
    write_table(paths["parquet"], long, "claims", settings, inputs)
    out = io.StringIO()
    writer = csv.DictWriter(out, CLAIMS.names, lineterminator="\n")
    writer.writeheader()
    for claim in table.claims:
        shown = {key: one_line(value, MOST) if isinstance(value, str) else value for key, value in vars(claim).items()}
        writer.writerow(shown)
    write_text(paths["csv"], out.getvalue())
    write_text(paths["md"], markdown(table))


def read(path: str | Path) -> ClaimTable:
    """Written claims; nothing is tested again."""
    made = describe(path)["settings"]
    claims = [Tested(**row) for row in read_table(path, "claims").to_pylist()]
    return ClaimTable(made["dataset"], claims, Significance.model_validate(made["significance"]))


HEADS = ("claim", "verdict", "what is claimed", "difference", "p", "smallest effect", "users")


def cells(claim: Tested) -> list[str]:
    """A row as it is printed, under `HEADS`."""
    seen = "" if claim.detectable is None else f"{claim.detectable:.4f}"
    return [claim.name, claim.verdict, claim.said, claim.told_difference, claim.told_p, seen, f"{claim.users:,}"]


def markdown(table: ClaimTable) -> str:
    """The claims for GitHub, and under them how they were tested."""
    lines = [f"### {escape_markdown(table.dataset)}: claims", "", f"| {' | '.join(HEADS)} |"]
    lines.append("|" + "---|" * 3 + "---:|" * (len(HEADS) - 3))
    lines += [f"| {' | '.join(map(escape_markdown, cells(claim)))} |" for claim in table.claims]
    return "\n".join([*lines, "", "; ".join(map(escape_markdown, table.notes())) + ".", ""])
