"""What do the vectors of an item table know? A linear probe for each attribute of the items.

A probe is a multinomial logistic regression from vectors to the values of an attribute, judged on items that it was not
fitted on (Alain and Bengio, ICLR 2017 workshop). Beside it stands the share of the most frequent value, the most that
one guess for all can get. No interaction is read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
"""Parts of the items; each is judged by a probe that was fitted on the others."""
MOST_ITEMS = 20_000
"""Of larger catalogues so many items are probed."""
MOST_NUMBERS = 4_000_000
"""Of larger tables (items x width) one part is judged alone: a fifth of so many items says enough."""
MOST_VALUES = 50
LEAST_MEMBERS = 5
"""An attribute is probed by its most frequent values that so many items have; items of other values are left out."""
LEAST_SHARE = 0.5
"""An attribute is none of classes where its probed values cover less of the items that have it."""
LEAST_ITEMS = 50
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse weights of the squared coefficients that are tried, on a part of the items that are fitted on."""
ITERATIONS = 200

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def drawn(raw_ids: Sequence[str], seed: int = 0) -> tuple[NDArray[np.uint32], Ints]:
    """For each raw id a random number that decides who is sampled, and its fold; both depend on id and seed alone."""
    digests = [blake2b(f"{seed}:{raw_id}".encode(), digest_size=8).digest() for raw_id in raw_ids]
    numbers = np.frombuffer(b"".join(digests), "<u4").reshape(-1, 2)
    return numbers[:, 0], (numbers[:, 1] % FOLDS).astype(np.int64)


def probed_values(values: Sequence[str]) -> list[str]:
    """The values of an attribute that are classes of its probe, in alphabetical order; empty where it has too few.

    Args:
        values: of every item that has the attribute.
    """
    counts = Counter(values)
    frequent = [value for value, count in counts.items() if count >= LEAST_MEMBERS]
    kept = sorted(frequent, key=lambda value: (-counts[value], value))[:MOST_VALUES]
    covered = sum(counts[value] for value in kept)
    few = len(kept) < 2 or covered < max(LEAST_ITEMS, LEAST_SHARE * len(values))
    return [] if few else sorted(kept)


def predictions(vectors: Floats, labels: Ints, folds: Ints, judged: Sequence[int]) -> Ints:
    """(n,) the label that a probe gives to each row of the judged folds, -1 elsewhere.

    Rows are standardised, and the weight of the penalty is chosen, by what a probe is fitted on alone.

    Args:
        vectors: (n, dim).
        labels: (n,) from 0.
        folds: (n,) the fold of each row.
        judged: folds whose rows are predicted, each by a probe that was fitted on all other folds.
    """
    given = np.full(len(labels), -1, np.int64)
    for fold in judged:
        rest = folds != fold
        inner = rest & (folds == (fold + 1) % FOLDS)
        strength = _strength(vectors, labels, rest & ~inner, inner)
        rows = folds == fold
        given[rows] = _fitted(vectors, labels, rest, rows, strength)
    return given


def _strength(vectors: Floats, labels: Ints, fitted: NDArray[np.bool_], judged: NDArray[np.bool_]) -> float:
    """The strength that is right most often; of equals the most careful."""
    rights = [
        int((_fitted(vectors, labels, fitted, judged, strength) == labels[judged]).sum()) for strength in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(rights))]


def _fitted(
    vectors: Floats, labels: Ints, fitted: NDArray[np.bool_], judged: NDArray[np.bool_], strength: float
) -> Ints:
    """The labels of some rows by a probe that was fitted on others."""
    # where a catalogue has no attribute, nothing waits for its import
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not judged.any():
        return np.zeros(0, np.int64)
    known = labels[fitted]
    if len(known) == 0 or (known == known[0]).all():
        return np.full(int(judged.sum()), known[0] if len(known) else 0, np.int64)
    mean = vectors[fitted].mean(0, dtype=np.float64)
    spread = vectors[fitted].std(0, dtype=np.float64)
    spread[spread < 1e-9 * max(float(spread.max()), 1e-300)] = 1.0
    rows, others = (((vectors[some] - mean) / spread).astype(np.float32) for some in (fitted, judged))
    probe = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=1e-3)
    with warnings.catch_warnings():
        # a strength that has not settled is taken only where it does best all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        given = probe.fit(rows, known).predict(others)
    return np.asarray(given, np.int64)


def probe(vectors: Floats, labels: Ints, folds: Ints) -> dict[str, Any]:
    """How well the labels of rows are read off their vectors.

    Args:
        vectors: (n, dim).
        labels: (n,) from 0.
        folds: (n,) the fold of each row.
    Returns:
        `accuracy` over the judged rows, `balanced` (mean over labels of the share that is recognised), `majority` (the
        share of the most frequent label), `values` (labels), `items` (rows) and `judged` (rows that were).
    """
    whole = vectors.size <= MOST_NUMBERS
    parts = [fold for fold in range(FOLDS) if (folds == fold).any()]
    parts = parts if whole else parts[:1]
    given = predictions(vectors, labels, folds, parts)
    rows = np.isin(folds, parts)
    right, truth = given[rows] == labels[rows], labels[rows]
    counts, hits = np.bincount(truth), np.bincount(truth, right)
    return {
        "accuracy": float(right.mean()),
        "balanced": float((hits[counts > 0] / counts[counts > 0]).mean()),
        "majority": int(counts.max()) / len(truth),
        "values": len(np.unique(labels)),
        "items": len(labels),
        "judged": len(truth),
    }


def describe_probes(
    vectors: Floats,
    present: NDArray[np.bool_],
    raw_ids: Sequence[str],
    attributes: Mapping[str, Mapping[int, str]],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """A probe of every attribute that has classes.

    Args:
        vectors: (items + 1, dim) by item id.
        present: (items + 1,) which items have a row.
        raw_ids: of items 1, 2, ...
        attributes: name -> item id -> value.
    Returns:
        name -> what `probe` says of it, with `left_out`, the items that have another value or were not sampled; and the
        attributes that are not probed, because they are texts or numbers, or because too few items have them.
    """
    order, folds = drawn(raw_ids)
    probes: dict[str, dict[str, Any]] = {}
    unprobed: list[str] = []
    for name, values in attributes.items():
        items = np.array(sorted(item for item in values if present[item]), np.int64)
        number = {value: place for place, value in enumerate(probed_values([values[item] for item in items.tolist()]))}
        kept = items[[values[item] in number for item in items.tolist()]] if number else items[:0]
        if len(kept) > MOST_ITEMS:
            kept = np.sort(kept[np.argsort(order[kept - 1], kind="stable")[:MOST_ITEMS]])
        if not len(kept):
            unprobed.append(name)
            continue
        labels = np.array([number[values[item]] for item in kept.tolist()], np.int64)
        numbers = probe(vectors[kept], labels, folds[kept - 1])
        probes[name] = {**numbers, "left_out": len(items) - len(kept)}
    return probes, unprobed
