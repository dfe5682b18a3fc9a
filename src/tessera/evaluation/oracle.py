"""The oracle of the demo world through the same judge as every system."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.files import file_digest, write_json
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import write_table
from tessera.data.bazaar.oracle import Oracle
from tessera.data.dataset import Cases, load_dataset, read_raw_ids
from tessera.evaluation.candidates import read_candidates
from tessera.evaluation.drawn_users import of_drawn_users
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import Ranked, evaluation_table, protocol_name, rank_cases, summarize
from tessera.settings.evaluation import Evaluation


class OracleScorer:
    """Log-probabilities at one step of one user: the judge hands over histories, the oracle needs to know whose."""

    max_history: int | None = None

    def __init__(self, oracle: Oracle, user: int, target: int) -> None:
        self.oracle, self.user, self.target = oracle, user, target

    def __call__(self, histories: Histories) -> Tensor:
        """(1, items) scores; items that cannot come again score minus infinity."""
        with np.errstate(divide="ignore"):
            scores = np.log(self.oracle.probabilities(self.user, self.target))
        return torch.from_numpy(scores[None].astype(np.float32))


def rank_by_oracle(
    oracle: Oracle,
    cases: Cases,
    settings: Evaluation,
    candidates: np.ndarray | None = None,
    cold: np.ndarray | None = None,
) -> Ranked:
    """Rank every case by its true probabilities; `candidates` and `cold` as in `rank_cases`."""
    parts = []
    with Progress("oracle", len(cases), "users") as progress:
        for case in range(len(cases)):
            scorer = OracleScorer(oracle, int(cases.users[case]), int(cases.targets[case]))
            among = None if candidates is None else candidates[case : case + 1]
            one = cases.take(np.array([case]))
            parts.append(rank_cases(scorer, one, settings, among, settings.recommendations, progress.update, cold))
    return Ranked(*(np.concatenate([getattr(one, part.name) for one in parts]) for part in fields(Ranked)))


def judge_oracle(
    settings: Evaluation,
    data: Path,
    truth: Path,
    candidates: Path | None,
    output: Path,
    metrics: Path,
    test_users: Path | None = None,
) -> dict[str, Any]:
    """Rank the test targets by their true probabilities, write the evaluation table and the metrics.

    Only users whose truth was kept are judged (`oracle_users` of the source), and of them those of the file
    `test_users` where there is one.

    Raises:
        ValueError: no test user's truth was kept.
    """
    started = time.monotonic()
    dataset = load_dataset(data)
    oracle = Oracle(truth, read_raw_ids(data, "users"), read_raw_ids(data, "items"))
    everyone = dataset.cases("test")
    cases = of_drawn_users(test_users, everyone)
    among = read_candidates(candidates, cases, dataset.n_items) if candidates else None
    known = np.flatnonzero(oracle.knows(cases.users))
    if not len(known):
        raise ValueError(f"{truth}: holds the truth of none of the {len(cases)} test users; raise `oracle_users`")
    if len(known) < len(cases):
        log.info("the oracle knows %d of %d test users", len(known), len(cases))
        cases, among = cases.take(known), None if among is None else among[known]
    popularity = dataset.train_counts
    ranked = rank_by_oracle(oracle, cases, settings, among, popularity == 0)
    table = evaluation_table(cases, ranked, popularity)
    described = {"system": "oracle", "recommender": "oracle", "seed": 0}
    read = {"truth": truth, "candidates": candidates, "test_users": test_users}
    inputs = {name: file_digest(path) for name, path in read.items() if path}
    write_table(output, table, "evaluation", {**described, "evaluation": settings.model_dump(mode="json")}, inputs)
    summary = summarize(table, settings, popularity, protocol_name(settings, among), **described)
    drawn = {"drawn_from": len(everyone) if test_users else None}
    write_json(metrics, {**summary, **drawn, "seconds": round(time.monotonic() - started, 3)})
    return summary
