"""k-means against its definition, brute force on few points, scikit-learn and faiss."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from tessera.quantization import kmeans as module
from tessera.quantization.base import nearest
from tessera.quantization.kmeans import assign, kmeans, plus_plus, refill, sums
from tessera.quantization.rq_kmeans import faiss_kmeans, residual_levels

torch.set_num_threads(1)


def rows(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32))


def test_the_result_is_a_fixed_point_and_says_its_error() -> None:
    vectors = rows(700, 6) + 5
    found = kmeans(vectors, 20, 500, (1,))
    distances = (vectors[:, None].double() - found.centres[None].double()).square().sum(-1)
    assert torch.equal(distances.argmin(1), found.assigned)
    assert found.error == pytest.approx(float(distances.min(1).values.mean()), rel=1e-4)
    for number in range(20):
        mean = vectors[found.assigned == number].mean(0)
        assert torch.allclose(mean, found.centres[number], atol=2e-2)
    assert found.iterations < 500


@pytest.mark.parametrize("clusters", [7, 300])
def test_no_more_distances_are_held_than_may_be(clusters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 65,536 codes 16,384 rows took four GiB, more than the stage is given."""
    vectors, centres = rows(90, 4), rows(clusters, 4, seed=1)
    wanted = assign(vectors, centres)
    held: list[int] = []
    product = torch.addmm

    def watched(*given: torch.Tensor, **more: float) -> torch.Tensor:
        made = product(*given, **more)
        held.append(made.numel())
        return made

    monkeypatch.setattr(module, "CELLS", 250)
    monkeypatch.setattr(torch, "addmm", watched)
    assert torch.equal(nearest(vectors, centres), wanted[0])
    torch.testing.assert_close(assign(vectors, centres), wanted)
    assert max(held) <= max(250, clusters)
    assert sum(held) == 2 * 90 * clusters


def test_few_points_reach_the_least_error_over_all_partitions() -> None:
    vectors = rows(9, 2, 3)
    least = min(
        sum(float((own - own.mean(0)).square().sum()) for k in (0, 1) if len(own := vectors[np.array(split) == k]))
        for split in product((0, 1), repeat=9)
    )
    best = min(kmeans(vectors, 2, 100, (seed,)).error * 9 for seed in range(10))
    assert best == pytest.approx(least, rel=1e-4)


def test_groups_far_apart_are_found_whatever_the_seed() -> None:
    middles = 100 * rows(12, 8, 1)
    vectors = (middles[:, None] + rows(30, 8, 2)).flatten(0, 1)
    for seed in range(5):
        found = kmeans(vectors, 12, 50, (seed,))
        assert len({tuple(group.tolist()) for group in found.assigned.view(12, 30)}) == 12
        assert (found.assigned.view(12, 30) == found.assigned.view(12, 30)[:, :1]).all()


def test_seeds_are_drawn_by_squared_distance() -> None:
    # 23 points at zero, one at distance one: the second seed is always the other place
    vectors = torch.zeros(24, 1)
    vectors[17] = 1.0
    for seed in range(20):
        assert plus_plus(vectors, 2, np.random.default_rng(seed)).sum() == 1.0
    # places 0, 1 and 3: after 0, the square of 3 is nine times that of 1
    vectors = torch.tensor([[0.0], [1.0], [3.0]])
    pairs = [plus_plus(vectors, 2, np.random.default_rng(seed)).flatten().tolist() for seed in range(3000)]
    second = [b for a, b in pairs if a == 0.0]
    assert second.count(3.0) / len(second) == pytest.approx(0.9, abs=0.03)


def test_the_same_seed_gives_the_same_clusters() -> None:
    vectors = rows(300, 4)
    a, b, c = kmeans(vectors, 30, 20, (1, 2)), kmeans(vectors, 30, 20, (1, 2)), kmeans(vectors, 30, 20, (1, 3))
    assert torch.equal(a.centres, b.centres)
    assert not torch.equal(a.centres, c.centres)


def test_empty_clusters_move_onto_the_farthest_rows() -> None:
    vectors = torch.tensor([[0.0], [0.1], [5.0], [9.0]])
    centres = torch.tensor([[0.0], [50.0], [60.0]])
    chosen, distances = assign(vectors, centres)
    total, counts = sums(vectors, chosen, 3)
    assert counts.tolist() == [4, 0, 0]
    assert total.flatten().tolist() == pytest.approx([14.1, 0, 0])
    assert refill(vectors, centres, counts, distances).flatten().tolist() == [0.0, 9.0, 5.0]


def test_fewer_places_than_clusters_leaves_finite_centres() -> None:
    vectors = rows(3, 4).repeat(10, 1)
    found = kmeans(vectors, 8, 20, (0,))
    assert torch.isfinite(found.centres).all()
    assert found.error == pytest.approx(0.0, abs=1e-6)
    # each is one of the places: one that nobody is near to would be a code of items that are seen later
    assert torch.cdist(found.centres, vectors).amin(1).max() < 1e-3


def test_fewer_vectors_than_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="5 vectors cannot make 6 clusters"):
        kmeans(rows(5, 2), 6, 10, (0,))


def test_the_same_centres_as_scikit_learn_from_the_same_seeds() -> None:
    vectors = rows(900, 8, 4)
    start = plus_plus(vectors, 12, np.random.default_rng((5,)))
    peer = KMeans(12, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(vectors.numpy())
    found = kmeans(vectors, 12, 300, (5,))
    # ours stops where a thousandth of a thousandth is gained, theirs where no row moves
    assert found.error * len(vectors) == pytest.approx(peer.inertia_, rel=1e-4)
    assert (found.assigned.numpy() == peer.labels_).mean() > 0.99
    np.testing.assert_allclose(found.centres.numpy(), peer.cluster_centers_, atol=0.02)


def test_no_worse_than_scikit_learn() -> None:
    vectors = rows(1500, 16)
    theirs = KMeans(32, init="k-means++", n_init=1, max_iter=50, random_state=0).fit(vectors.numpy()).inertia_
    assert kmeans(vectors, 32, 50, (1,)).error * len(vectors) == pytest.approx(theirs, rel=0.02)


def test_no_worse_than_faiss() -> None:
    vectors = rows(3000, 16)
    ours, theirs = kmeans(vectors, 64, 50, (1,)), faiss_kmeans(vectors, 64, 50, 1)
    assert ours.error == pytest.approx(theirs.error, rel=0.02)
    distances = (vectors[:, None] - theirs.centres[None]).square().sum(-1)
    assert torch.equal(distances.argmin(1), theirs.assigned)


def test_levels_where_nothing_is_left_stay_numbers() -> None:
    """As many codes as items: the first level takes all, and five levels of nothing have no length to divide by."""
    vectors = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    levels = residual_levels(vectors, [16] * 7, lambda rows, size, level: kmeans(rows, size, 5, [level]), unit=True)
    assert torch.isfinite(levels.scales).all()
    assert (levels.scales > 0).all()
    assert all(torch.isfinite(book / scale).all() for book, scale in zip(levels.codebooks, levels.scales, strict=True))
