"""Settings of claims: what is said before the run, and tested after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from tessera.settings.base import Settings, did_you_mean

if TYPE_CHECKING:
    from tessera.settings.config import Config

GROUPS = ("head", "tail", "cold", "cold only")
"""What may stand before a metric: targets of the head or the tail, cold ones among all items, or among cold ones."""


OF_CLICKS = ("AUC", "GAUC", "log loss")
"""Metrics of click models that claims may name."""


class Measured(NamedTuple):
    """A metric over all test users, or over those whose target belongs to a group."""

    metric: str
    group: str = ""


class Claim(Settings):
    """One system is better than another by a metric; tested over users on every dataset of the experiment."""

    name: str = Field(min_length=1)
    """What tables call it."""
    better: str
    """The row that is claimed to be better, as `system/recommender` (`reaemb/sasrec`); the system alone where it has
    one row. Of clicks, a model."""
    than: str
    """The row that it is compared with, named in the same way."""
    metric: str = "NDCG@10"
    """A metric of each user: Hit or NDCG at a cut-off of `evaluation`, MRR, or MRR at one of `mrr_cutoffs`; `head`,
    `tail`, `cold` or `cold only` before it takes the users whose target is such. Of clicks: AUC, GAUC or log loss."""
    at_least: float = Field(0.0, gt=-1, lt=1)
    """The claimed difference, in units of the metric: 0 claims any advantage, a negative one that it is not much worse.
    Of log loss, how much lower it is."""

    @property
    def measured(self) -> Measured:
        """The metric and its group."""
        group, _, metric = self.metric.rpartition(" ")
        return Measured(metric, group)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Rows that are not compared, one row twice, a metric that no user has."""
        for key, name in (("better", self.better), ("than", self.than)):
            rows = rows_of(config, name)
            if not rows:
                yield key, f"unknown name {name!r}{did_you_mean(name, all_rows(config))}"
            elif len(rows) > 1:
                yield key, f"{name!r} has several rows: {', '.join(rows)}; name one of them"
        if rows_of(config, self.better) == rows_of(config, self.than):
            yield "than", f"{self.than!r} is compared with itself"
        known = measured_by(config)
        if self.metric not in known:
            yield "metric", f"unknown name {self.metric!r}{did_you_mean(self.metric, known)}"


def measured_by(config: Config) -> list[str]:
    """The metrics that a claim may name."""
    if config.task == "ctr":
        return list(OF_CLICKS)
    metrics = config.evaluation.measured
    return metrics + [f"{group} {metric}" for group in GROUPS for metric in metrics]


def all_rows(config: Config) -> list[str]:
    """The rows of the tables, as `system/recommender`, or the click models."""
    if config.task == "ctr":
        return list(config.ctr.models) if config.ctr is not None else []
    rows = []
    for name in config.experiment.systems:
        system = config.systems[name]
        rows += [f"{name}/{recommender}" for recommender in system.under(config) or [system.label]]
    return rows


def rows_of(config: Config, name: str) -> list[str]:
    """The rows that a name stands for: itself, or those of the system."""
    return [row for row in all_rows(config) if name in (row, row.partition("/")[0])]
