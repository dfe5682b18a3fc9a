"""Rows given to columns at about the least cost, where no column takes more than so many rows.

Few rows are assigned exactly (Hungarian method on as many copies of a column as it has places). More are assigned by an
auction (Bertsekas, 1988), which ends within rows x its step of the least cost. Rows of tight clusters and copies would
outbid each other for too long. What has no place then takes shortest paths: a row moves another one out, which moves
the next, until a column has room. They keep that bound.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

EXACT_ROWS = 600
"""Most rows that are assigned exactly."""
STEP = 0.02
"""Least rise of a price in the auction, as a share of the mean distance to the nearest column."""
ROUNDS = 5000
"""Most rounds of the auction; what is left then takes shortest paths."""


def bounded_assignment(distances: np.ndarray, most: int) -> np.ndarray:
    """(n,) a column for each row, none taken by more than `most` rows, at about the least sum of distances.

    Args:
        distances: (n, columns), none negative.
        most: places of a column.
    Raises:
        ValueError: there are more rows than places.
    """
    rows, columns = distances.shape
    if rows > columns * most:
        raise ValueError(f"{rows} rows do not fit into {columns} clusters of {most}")
    chosen: np.ndarray = distances.argmin(1)
    if np.bincount(chosen, minlength=columns).max(initial=0) <= most:
        return chosen
    if rows <= EXACT_ROWS:
        columns_of: np.ndarray = linear_sum_assignment(np.repeat(distances, most, 1))[1]
        return columns_of // most
    return complete(distances, most, *auction(distances, most))


def least_rise(distances: np.ndarray) -> float:
    """The step of an auction: at the end no row is farther than this from its best column, prices included."""
    # the rest lets prices of rows that are centres themselves rise, too
    return STEP * float(distances.min(1).mean()) + 1e-12


def auction(distances: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows without a place bid for the column that suits them best; a column keeps its highest bids.

    Args:
        distances: (n, columns), two columns at least.
        most: places of a column.
    Returns:
        (n,) a column for each row, -1 where it has none yet; and (columns,) the prices, 0 of a column with room. No row
        finds another column cheaper than its own by more than a step, prices included.
    """
    rows, columns = distances.shape
    step = least_rise(distances)
    gaps = np.diff(np.partition(distances, 1, axis=1)[:, :2], axis=1)
    # prices rise by about the gap between two columns: where it has more steps than there are rounds, they lead nowhere
    rounds = ROUNDS if float(gaps.mean()) <= ROUNDS * step else 1
    prices = np.zeros(columns)
    bids = np.zeros(rows)
    owner = np.full(rows, -1)
    for _ in range(rounds):
        waiting = np.flatnonzero(owner < 0)
        if not len(waiting):
            break
        cost = distances[waiting] + prices
        best = cost.argmin(1)
        lowest = cost[np.arange(len(waiting)), best]
        cost[np.arange(len(waiting)), best] = np.inf
        # the highest price at which the best column is still as good as the second
        bids[waiting] = prices[best] + (cost.min(1) - lowest) + step
        owner[waiting] = best
        for column in np.unique(best):
            held = np.flatnonzero(owner == column)
            if len(held) > most:
                order = np.argsort(-bids[held], kind="stable")
                owner[held[order[most:]]] = -1
                prices[column] = bids[held[order[most - 1]]]
            elif len(held) == most:
                prices[column] = bids[held].min()
    return owner, prices


def complete(distances: np.ndarray, most: int, owner: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Columns of all rows, from those that an `auction` gave a column.

    What holds for its prices holds after every row (Tomizawa, 1971): columns nearer than the one that is reached rise
    in price by how much nearer they are.
    """
    waiting = np.flatnonzero(owner < 0)
    if not len(waiting):
        return owner
    owner, prices = owner.copy(), prices.copy()
    columns = distances.shape[1]
    room = most - np.bincount(owner[owner >= 0], minlength=columns)
    # what it costs at least that a row of one column moves to another, and which row that is
    moves = np.full((columns, columns), np.inf)
    movers = np.zeros((columns, columns), np.int64)

    def look(column: int) -> None:
        held = np.flatnonzero(owner == column)
        costs = distances[held] - distances[held, column, None]
        movers[column] = held[costs.argmin(0)]
        moves[column] = costs.min(0)

    for full in np.flatnonzero(room == 0).tolist():
        look(full)
    for row in waiting:
        reached, before = _shortest(distances[row] + prices, np.maximum(moves + prices - prices[:, None], 0.0))
        end = int(np.where(room > 0, reached, np.inf).argmin())
        prices += np.maximum(reached[end] - reached, 0.0)
        room[end] -= 1
        path = [end]
        while before[path[-1]] >= 0:
            path.append(int(before[path[-1]]))
        for into, out in pairwise(path):
            owner[movers[out, into]] = into
        owner[row] = path[-1]
        for column in path:
            if not room[column]:
                look(column)
    return owner


def _shortest(start: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(columns,) the shortest ways to columns, and the column before each, -1 where the way starts (Bellman, Ford)."""
    reached, before = start.copy(), np.full(len(start), -1)
    while True:
        ways = reached[:, None] + steps
        through = ways.argmin(0)
        ways = ways[through, np.arange(len(start))]
        shorter = ways < reached
        if not shorter.any():
            return reached, before
        reached, before = np.where(shorter, ways, reached), np.where(shorter, through, before)
