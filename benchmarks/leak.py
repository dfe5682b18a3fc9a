"""What a reward by co-occurrence learns from held-out interactions, counted without any training.

ReaEmb's published code (defect R1 in docs/systems/reaemb.md) counts which items meet in whole histories, held-out
interactions included. For each prepared dataset: of how many items is the positive one that training never shows them
with, and of how many test users the target is a positive of the item before it.

    python benchmarks/leak.py results/<experiment>/<dataset>/data ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tessera.data.dataset import Dataset, load_dataset
from tessera.embedding.cooccurrence import Candidates, build_candidates
from tessera.settings.recipes.crrl import CRRLTable


def rewarded(dataset: Dataset, positives: int, leak: bool) -> Candidates:
    """The positives of every item, by training histories or by whole ones."""
    settings = CRRLTable(model="any", positives=positives, candidates=positives + 1)
    histories = (dataset.offsets, dataset.items) if leak else None
    return build_candidates(dataset, np.arange(1, dataset.n_items + 1), settings, histories)


def never_met(leaked: Candidates, train: Candidates) -> tuple[float, float]:
    """Of items with a positive by whole histories, the share whose first is, and whose any is, not met in training."""
    met = np.asarray(train.counts[leaked.anchors[:, None], leaked.positives].todense()) > 0
    new = (leaked.weights > 0) & ~met
    return float(new[:, 0].mean()), float(new.any(1).mean())


def shown(dataset: Dataset, candidates: Candidates) -> float:
    """The share of test users whose target is a positive of the last item before it."""
    cases = dataset.cases("test")
    rows = np.full(dataset.n_items + 1, -1)
    rows[candidates.anchors] = np.arange(len(candidates.anchors))
    last = rows[[cases.history(case)[-1] for case in range(len(cases))]]
    positives = np.where(candidates.weights[last] > 0, candidates.positives[last], 0)
    hit = (positives == cases.targets[:, None]).any(1) & (last >= 0)
    return float(hit.mean())


def main() -> None:
    """Print a row a dataset and number of positives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders of prepared datasets")
    arguments = parser.parse_args()
    columns = ("dataset", "positives", "first never met in training", "any", "target shown: whole", "training")
    print("|" + "|".join(f" {column} " for column in columns) + "|")
    print("|---" * len(columns) + "|")
    for folder in arguments.data:
        dataset = load_dataset(folder)
        for positives in (1, 3):
            leaked, train = (rewarded(dataset, positives, leak) for leak in (True, False))
            first, some = never_met(leaked, train)
            numbers = f"{first:.3f} | {some:.3f} | {shown(dataset, leaked):.3f} | {shown(dataset, train):.3f}"
            print(f"| {folder.parent.name} | {positives} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
