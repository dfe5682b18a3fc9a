"""What users are interested in, in words and as vectors: several rows a user, keyed by id and position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tessera.artifacts.tables import ArtifactError, read_table, write_table

KIND = "user_interests"


class Interest(NamedTuple):
    """One interest of a user."""

    name: str
    description: str
    items: list[int]
    """The items of the history that show it."""

    @property
    def text(self) -> str:
        """As a language model reads it."""
        return f"{self.name}: {self.description}" if self.description else self.name


def write_interests(
    path: str | Path,
    users: np.ndarray,
    interests: Sequence[Interest],
    vectors: np.ndarray,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    **more: Any,
) -> None:
    """Write rows (n,), grouped by user.

    Args:
        path: Parquet of the kind `user_interests`: user, position (from 0), name, description, items, embedding.
        users: (n,) dense ids.
        interests: (n,)
        vectors: (n, dim) float32.
    """
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    positions = np.arange(len(users)) - np.repeat(starts, np.diff(starts, append=len(users)))
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    table = pa.table(
        {
            "user": pa.array(users, pa.int32()),
            "position": pa.array(positions, pa.int32()),
            "name": pa.array([one.name for one in interests], pa.string()),
            "description": pa.array([one.description for one in interests], pa.string()),
            "items": pa.array([one.items for one in interests], pa.list_(pa.int32())),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    write_table(path, table, KIND, settings, inputs, **more)


class UserInterests(NamedTuple):
    """Vectors of what some users are interested in."""

    users: np.ndarray
    """(n,) int64 ids, ascending."""
    vectors: np.ndarray
    """(n, most, dim) float32, zero where a user has fewer."""
    present: np.ndarray
    """(n, most) bool."""


def read_interests(path: str | Path) -> UserInterests:
    """Read them, in any row order.

    Raises:
        ArtifactError: wrong kind, a position that stands twice, nobody, or NaN or infinity.
    """
    table = read_table(path, KIND, ["user", "position", "embedding"])
    if not table.num_rows:
        raise ArtifactError(f"{path}: holds no interest of anybody")
    users, positions = (table.column(name).to_numpy() for name in ("user", "position"))
    flat = table.column("embedding").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows = flat.reshape(table.num_rows, -1)
    if (bad := ~np.isfinite(rows).all(1)).any():
        raise ArtifactError(f"{path}: a vector of user {users[bad.argmax()]} holds NaN or infinity")
    known, place = np.unique(users, return_inverse=True)
    vectors = np.zeros((len(known), int(positions.max()) + 1, rows.shape[1]), np.float32)
    present = np.zeros(vectors.shape[:2], bool)
    vectors[place, positions], present[place, positions] = rows, True
    if int(present.sum()) != len(rows):
        raise ArtifactError(f"{path}: {len(rows) - int(present.sum())} positions of users stand twice")
    return UserInterests(known.astype(np.int64), vectors, present)
