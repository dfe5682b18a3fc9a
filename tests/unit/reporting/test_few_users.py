"""What is told of few users, or of many of whom few differ: no interval, effect or verdict that cannot be known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tessera.evaluation.significance import LEAST_USERS, can_reach_level, enough_differ
from tessera.reporting.claims import ClaimTable, judged
from tessera.reporting.ranking_claims import _measure
from tessera.reporting.ranking_comparison import RankingComparison
from tessera.reporting.runs import Entry
from tessera.settings.claims import Claim
from tessera.settings.evaluation import Significance

ROWS: tuple[Entry[Any], Entry[Any]] = (Entry("b", "sasrec", ()), Entry("a", "sasrec", ()))
CLAIM = Claim(name="costs little", better="b", than="a", at_least=-0.01)


def outcome(differences: np.ndarray, claim: Claim = CLAIM, rule: Significance | None = None, count: int = 1) -> Any:
    rule = rule or Significance(resamples=2000)
    zeros = np.zeros(len(differences))
    measures = [_measure(claim, *ROWS, zeros + differences, zeros, rule, count) for _ in range(count)]
    return judged("shop", [claim] * count, measures, rule).claims[0]


def test_users_who_differ_in_nothing_are_no_evidence() -> None:
    claim = outcome(np.zeros(12))
    assert (claim.verdict, claim.p, claim.detectable) == ("undecided", 1.0, None)
    for alike in (0.1, 0.25, 1 / 3):
        assert outcome(np.full(70, alike)).detectable is None
    # of two thousand a mean of -0.01 would need twenty who differ
    assert outcome(np.zeros(2000)).verdict == "holds"


@pytest.mark.parametrize("method", ["randomization", "bootstrap", "t_test"])
@pytest.mark.parametrize(("users", "at_least"), [(70, -0.02), (200, -0.01), (200, 0.02)])
def test_a_claim_that_is_just_true_is_seldom_decided(users: int, at_least: float, method: str) -> None:
    rule = Significance.model_validate({"method": method, "resamples": 400})
    claim = CLAIM.model_copy(update={"at_least": at_least})
    generator = np.random.default_rng(4)
    decided = 0
    worlds = 150
    for _ in range(worlds):
        # the mean of the world is what is claimed
        one, other = (0.01, 0.01 + abs(at_least)) if at_least < 0 else (0.01 + at_least, 0.01)
        drawn = generator.random(users)
        differences = np.where(drawn < one, 1.0, np.where(drawn < one + other, -1.0, 0.0))
        decided += outcome(differences, claim, rule).verdict != "undecided"
    assert decided / worlds <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / worlds)


def test_enough_users_tell_of_a_distance() -> None:
    few = np.concatenate([np.ones(LEAST_USERS - 1), np.zeros(100)])
    assert not enough_differ(few, 0.05)
    assert enough_differ(np.concatenate([few, [-0.5]]), 0.05)
    assert enough_differ(few, 0.1)


def test_no_effect_is_told_that_so_few_users_could_not_show() -> None:
    plain = CLAIM.model_copy(update={"at_least": 0.0})
    values = np.array([0.9, 1.0, 1.1, 1.0, 0.8])
    claim = outcome(values, plain)
    assert (claim.p, claim.verdict, claim.detectable, claim.low) == (0.0625, "undecided", None, None)
    eight = outcome(np.linspace(0.5, 1.0, 8), plain)
    assert (eight.verdict, eight.low) == ("holds", None)
    assert eight.detectable is not None
    assert outcome(np.linspace(0.5, 1.0, 9), plain, count=13).detectable is None
    rule = Significance()
    assert [users for users in range(2, 12) if can_reach_level(rule, 1, users)] == [6, 7, 8, 9, 10, 11]
    assert can_reach_level(Significance(method="t_test"), 1, 10)


def test_the_note_says_what_is_left_empty() -> None:
    table = ClaimTable("shop", [outcome(np.zeros(12))], Significance())
    assert "undecided where fewer than ten users differ" in table.notes()[0]
    assert "none where the users are too few" in table.notes()[-1]
    clicks = ClaimTable("shop", [outcome(np.zeros(5))], Significance(method="bootstrap"), of_users=False)
    assert "of fewer than 10 users nothing" in clicks.notes()[0]


def compared(values: np.ndarray, head: np.ndarray) -> RankingComparison:
    return RankingComparison(
        metric="NDCG@10", ranked=list(ROWS), intervals={}, means=values.mean(0), users=len(values), p=np.ones((2, 2)),
        least=0.0, level=0.05, values=values, head=head, significance=Significance(resamples=200),
    )  # fmt: skip


def test_gains_of_few_users_have_no_interval() -> None:
    values = np.stack([np.linspace(0.3, 0.9, 30), np.linspace(0.2, 0.7, 30)], axis=1)
    every, head, tail = compared(values, np.arange(30) < 1).gains(0, 1)
    assert (every.interval.count("%"), tail.interval.count("%")) == (2, 2)
    assert head.interval == "of one user alone, so no interval"


def test_nothing_over_nothing_is_no_gain() -> None:
    values = np.stack([np.linspace(0.3, 0.9, 30), np.linspace(0.2, 0.7, 30)], axis=1)
    values[:12] = 0
    assert [gain.name for gain in compared(values, np.arange(30) < 12).gains(0, 1)] == ["", "Tail"]


def test_a_gain_over_nothing_is_a_difference() -> None:
    values = np.stack([np.linspace(0.3, 0.9, 40), np.zeros(40)], axis=1)
    every = compared(values, np.ones(40, bool)).gains(0, 1)[0]
    assert every.number == "+0.6000"
    low, high = (float(end) for end in every.interval.split(" to "))
    assert 0.5 < low < 0.6 < high < 0.7
