"""Claims of click-through models: an AUC is no mean over users, so both models are judged on the same resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tessera.evaluation import clicks
from tessera.evaluation.significance import enough_resamples
from tessera.reporting.claims import ClaimTable, Measure, judged, row_of
from tessera.reporting.ctr import ClickTable, bare, resampled, significance
from tessera.reporting.runs import Array
from tessera.reporting.tables import Column
from tessera.settings.claims import Claim
from tessera.settings.ctr import CTREvaluation


def of_job(runs: Sequence[str | Path], settings: Mapping[str, Any]) -> ClaimTable:
    """The claims of a job, whose settings came as JSON."""
    claims = [Claim.model_validate(claim) for claim in settings["claims"]]
    evaluation = CTREvaluation.model_validate(settings["evaluation"])
    return judge_claims(settings["dataset"], runs, claims, evaluation)


def judge_claims(
    dataset: str, runs: Sequence[str | Path], claims: Sequence[Claim], evaluation: CTREvaluation
) -> ClaimTable:
    """Test every claim on the runs of a dataset; one Holm family.

    Args:
        runs: paths of metrics.json, predictions.parquet beside each.
    Raises:
        ArtifactError: two models predict different samples.
    """
    table = bare(dataset, runs, evaluation)
    table.average()
    rows = {name: row_of(table.entries, name) for claim in claims for name in (claim.better, claim.than)}
    resamples = enough_resamples(significance(evaluation), len(claims))
    draws = resampled(table, resamples, list({row.name: row for row in rows.values()}.values()))
    measures = [_measure(claim, table, draws) for claim in claims]
    return judged(dataset, claims, measures, significance(evaluation), of_users=False)


def _measure(claim: Claim, table: ClickTable, draws: Mapping[str, Mapping[str, Array]]) -> Measure:
    one, other = row_of(table.entries, claim.better), row_of(table.entries, claim.than)
    column = Column(claim.metric)
    mine, theirs = table.cell(one, column), table.cell(other, column)
    if mine is None or theirs is None:
        return Measure(one, other, None, None, None, users=0)
    # of a loss the smaller is the better: a difference is how much better, whatever the metric
    sign = -1.0 if table.metric(column).better == "smaller" else 1.0
    difference = sign * (mine.mean - theirs.mean)
    drawn = sign * (draws[one.name][claim.metric] - draws[other.name][claim.metric])
    known = drawn[~np.isnan(drawn)]
    return Measure(
        one,
        other,
        mine.mean,
        theirs.mean,
        difference,
        users=table.judged.users,
        interval=clicks.interval(drawn, table.evaluation.level),
        p=clicks.paired_p(drawn - claim.at_least, difference - claim.at_least),
        error=float(known.std(ddof=1)) if len(known) > 1 else None,
    )
