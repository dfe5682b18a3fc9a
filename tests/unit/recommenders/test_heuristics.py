import itertools

import numpy as np
import torch

from tessera.data.padding import padded
from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import TrainingHistories
from tessera.recommenders.systems.item_knn import ItemKNN
from tessera.recommenders.systems.markov import Markov
from tessera.recommenders.systems.popular import Popular
from tessera.settings.systems.item_knn import ItemKNNSettings
from tessera.settings.systems.markov import MarkovSettings
from tessera.settings.systems.popular import PopularSettings

RNG = np.random.default_rng(0)
COUNT = 15
HISTORIES = [RNG.integers(1, COUNT + 1, n) for n in (5, 1, 9, 4, 7, 0, 12)]
OFFSETS = np.concatenate([[0], np.cumsum([len(h) for h in HISTORIES])])
ITEMS = np.concatenate(HISTORIES).astype(np.int32)
ASKED = [np.array([3, 5, 5]), np.array([9]), np.array([1, 2, 3, 4])]
LENGTHS = np.array([len(h) for h in ASKED])
BATCH = Histories.of(padded(np.concatenate(ASKED), np.cumsum(LENGTHS) - LENGTHS, LENGTHS))
LEARNED = TrainingHistories(OFFSETS, ITEMS)


def test_popular_scores_are_counts():
    settings = PopularSettings()
    scores = Popular(settings, Popular.fit(settings, LEARNED, COUNT))(BATCH)
    assert scores.tolist() == [[(i == ITEMS).sum() for i in range(1, COUNT + 1)]] * 3


def test_markov_probabilities_are_smoothed_transition_counts():
    settings = MarkovSettings(smoothing=2.0)
    scores = Markov(settings, Markov.fit(settings, LEARNED, COUNT))(BATCH)
    counts = np.zeros((COUNT + 1, COUNT + 1))
    for history in HISTORIES:
        for a, b in itertools.pairwise(history):
            counts[a, b] += 1
    prior = np.bincount(ITEMS, minlength=COUNT + 1) / len(ITEMS)
    for row, asked in enumerate(ASKED):
        last = asked[-1]
        expected = (counts[last] + 2.0 * prior) / (counts[last].sum() + 2.0)
        np.testing.assert_allclose(scores[row], expected[1:], rtol=1e-5)
    torch.testing.assert_close(scores.sum(1), torch.ones(3))


def test_item_knn_is_a_decayed_sum_of_shrunk_cosines():
    settings = ItemKNNSettings(neighbours=6, shrinkage=1.5, decay=0.8)
    scores = ItemKNN(settings, ItemKNN.fit(settings, LEARNED, COUNT))(BATCH)
    seen = np.zeros((len(HISTORIES), COUNT + 1))
    for user, history in enumerate(HISTORIES):
        seen[user, history] = 1
    together, alone = seen.T @ seen, seen.sum(0)
    similarity = together / (np.sqrt(np.outer(alone, alone)) + 1.5)
    np.fill_diagonal(similarity, 0)
    for row in similarity:
        row[np.argsort(-row, kind="stable")[6:]] = 0
    for row, asked in enumerate(ASKED):
        expected = sum(0.8**age * similarity[item] for age, item in enumerate(reversed(asked)))
        np.testing.assert_allclose(scores[row], expected[1:], rtol=1e-5, atol=1e-7)


def test_item_knn_reads_only_the_end_of_long_histories():
    long = ItemKNNSettings(max_history=3, shrinkage=0.0, neighbours=COUNT)
    cut = [h[-3:] for h in HISTORIES]
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in cut])])
    settings = ItemKNNSettings(shrinkage=0.0, neighbours=COUNT)
    expected = ItemKNN.fit(settings, TrainingHistories(offsets, np.concatenate(cut)), COUNT)
    found = ItemKNN.fit(long, LEARNED, COUNT)
    torch.testing.assert_close(found["similarities"], expected["similarities"])
