"""The tree of codes: it reaches the catalogue and nothing else, whatever way it is walked."""

import numpy as np
import pytest
import torch

from tessera.recommenders.trie import NOWHERE, ROOT, CodeTrie


def random_codes(items: int, sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.integers(0, size, items) for size in sizes], 1)
    rows[rng.random(items) < 0.1] = -1
    return np.concatenate([np.full((1, len(sizes)), -1), rows])


CASES = [(60, (4, 4, 4)), (200, (3, 7, 2, 5)), (5, (300,)), (40, (1, 1, 2)), (90, (12, 2))]


def below(codes: np.ndarray, prefix: tuple[int, ...]) -> list[int]:
    """Items whose codes begin with a prefix, one after the other."""
    return [
        item for item, row in enumerate(codes.tolist()) if row[0] >= 0 and tuple(row[: len(prefix)]) == tuple(prefix)
    ]


@pytest.mark.parametrize(("items", "sizes"), CASES)
def test_every_walk_from_the_root_ends_at_items_and_all_items_are_reached(items: int, sizes: tuple[int, ...]) -> None:
    codes = random_codes(items, sizes)
    trie = CodeTrie(codes, sizes)
    reached: list[int] = []
    walks = [(ROOT, ())]
    for level in range(len(sizes)):
        longer = []
        for node, prefix in walks:
            mask = trie.children_mask(torch.tensor([node]), level)[0]
            allowed = [code for code in range(sizes[level]) if below(codes, (*prefix, code))]
            assert torch.nonzero(mask).flatten().tolist() == allowed
            for code in allowed:
                child = int(trie.step(torch.tensor(node), torch.tensor(code)))
                assert trie.prefix(torch.tensor(child), level + 1).tolist() == [*prefix, code]
                assert sorted(trie.items_of(child).tolist()) == below(codes, (*prefix, code))
                longer.append((child, (*prefix, code)))
        assert sorted(node for node, _ in longer) == list(
            range(trie.level_starts[level + 1], trie.level_starts[level + 2])
        )
        walks = longer
    for leaf, prefix in walks:
        found = trie.items_of(leaf).tolist()
        assert found == below(codes, prefix), "items of a leaf come by id"
        assert trie.leaf_of[found].tolist() == [leaf] * len(found)
        reached += found
    assert sorted(reached) == np.flatnonzero(codes[:, 0] >= 0).tolist()
    assert trie.leaves == len({tuple(row) for row in codes.tolist() if row[0] >= 0}) == len(walks)
    assert trie.nodes == trie.level_starts[-1]
    assert (trie.leaf_of[codes[:, 0] < 0] == NOWHERE).all()


@pytest.mark.parametrize(("items", "sizes"), CASES)
def test_a_step_off_the_tree_leads_nowhere(items: int, sizes: tuple[int, ...]) -> None:
    codes = random_codes(items, sizes, seed=1)
    trie = CodeTrie(codes, sizes)
    for level, size in enumerate(sizes):
        nodes = torch.arange(trie.level_starts[level], trie.level_starts[level + 1])
        tried = trie.step(nodes[:, None].expand(-1, size), torch.arange(size).expand(len(nodes), -1))
        assert torch.equal(tried >= 0, trie.children_mask(nodes, level))
        children, child_codes = trie.expand(nodes, level)
        assert children.shape == (len(nodes), trie.widths[level])
        assert torch.equal(tried.gather(1, child_codes)[children >= 0], children[children >= 0])
        assert int((children >= 0).sum()) == int((tried >= 0).sum())
    leaves = torch.arange(trie.level_starts[-2], trie.nodes)
    assert (trie.step(leaves, torch.zeros_like(leaves)) == NOWHERE).all()
    assert (trie.step(torch.full((3,), NOWHERE), torch.arange(3)) == NOWHERE).all()
    assert (trie.step(torch.full((2,), ROOT), torch.tensor([-1, 10**6])) == NOWHERE).all()
    assert not trie.children_mask(torch.tensor([NOWHERE]), 0).any()
    assert (trie.expand(torch.tensor([NOWHERE]), 0)[0] == NOWHERE).all()


def test_values_of_leaves_reach_all_their_items() -> None:
    codes = np.array([[-1, -1], [0, 1], [2, 0], [0, 1], [-1, -1], [0, 0]])
    trie = CodeTrie(codes, (3, 2))
    assert trie.leaves == 3  # 0 0, 0 1, 2 0
    values = torch.tensor([[10.0, 20.0, 30.0]])
    assert trie.to_items(values, -9.0).tolist() == [[20.0, 30.0, 20.0, -9.0, 10.0]]


def test_shapes_of_batches_are_kept() -> None:
    codes = random_codes(50, (5, 6))
    trie = CodeTrie(codes, (5, 6))
    nodes = trie.expand(torch.full((2, 3), ROOT), 0)[0]
    assert nodes.shape == (2, 3, trie.widths[0])
    assert trie.children_mask(nodes, 1).shape == (2, 3, trie.widths[0], 6)
    assert trie.prefix(nodes, 1).shape == (2, 3, trie.widths[0], 1)


def test_arrays_follow_the_module_and_are_not_saved() -> None:
    trie = CodeTrie(random_codes(20, (4, 4)), (4, 4))
    assert not trie.state_dict()
    assert trie.to("meta").first_child.device.type == "meta"


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[-1, -1], [0, 5]], (2, 4), r"item 1 has the codes \[0, 5\]"),
        ([[-1, -1], [0, -1]], (2, 4), "item 1 has the codes"),
        ([[-1, -1], [-1, -1]], (2, 4), "no item has codes"),
        ([[-1, -1], [0, 0]], (2, 4, 4), "expected .items . 1, 3."),
    ],
)
def test_wrong_codes_are_named(codes: list[list[int]], sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeTrie(np.array(codes), sizes)
