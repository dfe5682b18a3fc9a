"""The best of the trials of a search, by validation alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.logs import log


def choose(trials: Sequence[Path], best: Path, search: Path) -> None:
    """Write the values of the best trial to `best`, and what became of all of them to `search`.

    `best` changes only where other values are chosen, so that more trials train nothing again that they do not change.
    Of equal trials the first counts.

    Args:
        trials: paths of trial.json, in the order of the trials.
        best: `values` by path.
        search: `trials`, and `curve`, the best validation after each of them.
    Raises:
        ValueError: every trial failed.
    """
    outcomes = [read_json(path) for path in trials]
    judged = [(-1.0 if one["validation"] is None else one["validation"]) for one in outcomes]
    if max(judged) < 0:
        raise ValueError(
            f"{trials[0].parent.parent}: all {len(trials)} trials failed; the first: {outcomes[0]['failed']}"
        )
    number = judged.index(max(judged))
    curve = [None if value < 0 else value for value in accumulate(judged, max)]
    write_json(best, {"values": outcomes[number]["values"]})
    write_json(search, {"best": number, "curve": curve, "trials": outcomes})
    failed = sum(one["validation"] is None for one in outcomes)
    log.info(
        "best of %d trials (%d failed): trial %d, validation NDCG@10 %.4f, %s",
        len(trials), failed, number, judged[number], outcomes[number]["values"],
    )  # fmt: skip
