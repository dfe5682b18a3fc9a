"""The oracle of a lifelong demo world: the true chance of a click, judged as every model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tessera.artifacts.files import file_digest, write_json
from tessera.artifacts.tables import ArtifactError, read_table
from tessera.ctr.data import load_catalogue, load_samples
from tessera.ctr.evaluate import judge, write_predictions
from tessera.data.dataset import read_raw_ids
from tessera.settings.ctr import CTREvaluation

_TIMES = 2**40


def judge_oracle(
    settings: CTREvaluation, data: Path, truth: Path, folder: Path, output: Path, summary_path: Path
) -> dict[str, Any]:
    """Write the true probabilities of the test samples as predictions, and their metrics.

    Raises:
        ArtifactError: a test sample is not in the truth (raise `oracle_users` of the source).
    """
    samples = load_samples(folder)
    test = samples.of("test")
    table = read_table(truth, "click_truth")
    users, items = (
        _dense(table, "user", read_raw_ids(data, "users")),
        _dense(table, "item", read_raw_ids(data, "items")),
    )
    # a user of the world is never shown two items at once
    keys = users * _TIMES + table.column("timestamp").to_numpy()
    order = np.argsort(keys, kind="stable")
    wanted = samples.users[test] * _TIMES + samples.moments[test] // samples.ticks  # a world's times are seconds
    rows = order[np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)]
    missing = np.flatnonzero((keys[rows] != wanted) | (items[rows] != samples.targets[test]))
    if len(missing):
        raise ArtifactError(
            f"{truth}: tells nothing of test sample {test[missing[0]]} (user {samples.users[test][missing[0]]}), "
            f"and of {len(missing) - 1} more; raise oracle_users"
        )
    probabilities = table.column("probability").to_numpy()[rows].astype(np.float32)
    described = {"model": "oracle", "seed": 0, "kind": "oracle"}
    write_predictions(output, samples, test, probabilities, described, {"truth": file_digest(truth)})
    summary = judge(samples, test, probabilities, load_catalogue(folder), settings) | described
    write_json(summary_path, summary)
    return summary


def _dense(table: pa.Table, column: str, raw_ids: list[str]) -> np.ndarray:
    """(rows,) dense ids of a column of raw ids, 0 for those that the dataset has not kept."""
    ids = pc.fill_null(pc.index_in(table.column(column), pa.array(raw_ids)), 0)
    return np.asarray(ids.to_numpy(), np.int64)
