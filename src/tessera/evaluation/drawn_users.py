"""A random part of the test users: drawn once, kept in a file, the same for every system and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError, read_table
from tessera.data.dataset import Cases
from tessera.settings.evaluation import Evaluation


def draw_test_users(cases: Cases, settings: Evaluation) -> pa.Table:
    """`evaluation.test_users` of the users of the test cases, without replacement; all where there are no more.

    Policies for cold and repeated targets have no say: they are applied to whom is drawn.

    Raises:
        ValueError: the settings ask for no part of the users.
    """
    if settings.test_users is None:
        raise ValueError("evaluation.test_users is null: all test users are judged, so there is nothing to draw")
    wanted, users = settings.test_users, cases.users
    if wanted >= len(users):
        log.info(
            "evaluation.test_users: %s, and there are %s test users: all are judged", f"{wanted:,}", f"{len(users):,}"
        )
    else:
        generator = np.random.default_rng(settings.test_users_seed)
        users = np.sort(users[generator.choice(len(users), wanted, replace=False)])
    return pa.table({"user": pa.array(users, pa.int32())})


def of_drawn_users(path: str | Path | None, cases: Cases) -> Cases:
    """The cases of the users of a file that `draw_test_users` made; without a file all cases.

    Raises:
        ArtifactError: a user of the file has no test case.
    """
    if path is None:
        return cases
    users = read_table(path, "test_users").column("user").to_numpy()
    strangers = np.setdiff1d(users, cases.users)
    if len(strangers):
        raise ArtifactError(
            f"{path}: {len(strangers):,} of its {len(users):,} users have no test case, "
            f"the first is user {strangers[0]}"
        )
    return cases.take(np.flatnonzero(np.isin(cases.users, users)))
