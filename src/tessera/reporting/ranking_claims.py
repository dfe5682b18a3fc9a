"""Claims of systems that rank the next item: a metric is a mean over users, whose differences are paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tessera.evaluation.significance import (
    LEAST_USERS,
    bootstrap_interval,
    can_reach_level,
    enough_differ,
    enough_resamples,
    p_values,
)
from tessera.reporting.claims import ClaimTable, Measure, judged, row_of
from tessera.reporting.ranking_runs import RankingRun, check_same_users, cold_metrics, entries, user_metrics
from tessera.reporting.runs import Array, Entry
from tessera.settings.claims import Claim
from tessera.settings.evaluation import Evaluation, Significance


def of_job(runs: Sequence[str | Path], settings: Mapping[str, Any]) -> ClaimTable:
    """The claims of a job, whose settings came as JSON."""
    claims = [Claim.model_validate(claim) for claim in settings["claims"]]
    evaluation = Evaluation.model_validate(settings["evaluation"])
    significance = Significance.model_validate(settings["significance"])
    return judge_claims(settings["dataset"], runs, settings["order"], claims, evaluation, significance)


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
    measures = []
    for claim in claims:
        one, other = row_of(rows, claim.better), row_of(rows, claim.than)
        check_same_users(one, user_metrics(one, evaluation), other, user_metrics(other, evaluation))
        mine, theirs = _of_users(one, claim, evaluation), _of_users(other, claim, evaluation)
        measures.append(_measure(claim, one, other, mine, theirs, significance, len(claims)))
    return judged(dataset, claims, measures, significance)


def _of_users(entry: Entry[RankingRun], claim: Claim, evaluation: Evaluation) -> Array:
    """(users,) the metric of each user that the claim asks for, averaged over the seeds."""
    metric, group = claim.measured
    if group.startswith("cold"):
        return cold_metrics(entry, evaluation)[group][metric]
    judged_users = user_metrics(entry, evaluation)
    values = judged_users.values[metric]
    if not group:
        return values
    return values[judged_users.head] if group == "head" else values[~judged_users.head]


def _measure(
    claim: Claim,
    one: Entry[RankingRun],
    other: Entry[RankingRun],
    mine: Array,
    theirs: Array,
    significance: Significance,
    count: int,
) -> Measure:
    users = len(mine)
    if not users:
        return Measure(one, other, None, None, None, users=0)
    differences = mine - theirs
    means = float(mine.mean()), float(theirs.mean()), float(differences.mean())
    if users < 2:
        return Measure(one, other, *means, users=users)
    interval = error = None
    if users >= LEAST_USERS:
        resamples = enough_resamples(significance, count)
        low, high = bootstrap_interval(differences, significance.level, resamples, significance.seed)
        interval = float(low[0]), float(high[0])
    if can_reach_level(significance, count, users):
        spread = float(differences.std(ddof=1))
        # of differences that are all alike rounding is left
        error = spread / math.sqrt(users) if spread > 1e-12 else None
    comparable = not claim.at_least or enough_differ(differences, claim.at_least)
    p = float(p_values(differences - claim.at_least, significance, count)[0]) if comparable else 1.0
    return Measure(one, other, *means, users=users, interval=interval, p=p, error=error)
