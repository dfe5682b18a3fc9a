"""From a model that writes codes to scores of items: constrained beam search, and the probability of every item.

All rows of a batch take each step at once, on the device; there is no loop over users, beams or codes in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

from tessera.recommenders.t5 import Cache, Memory
from tessera.recommenders.trie import NOWHERE, ROOT, CodeTrie

Normalize = Literal["catalogue", "vocabulary"]


class Writer(Protocol):
    """A model that writes semantic IDs, a code a level."""

    def next_codes(self, level: int, codes: Tensor, cache: Cache, memory: Memory) -> tuple[Tensor, Cache]:
        """Logits (batch, rows, codes of `level`) after the codes (batch, rows) of the level before, and the cache."""


def beam_search(writer: Writer, memory: Memory, trie: CodeTrie, beams: int, normalize: Normalize) -> Tensor:
    """(batch, leaves) log probabilities of the leaves that the search reached, -inf elsewhere.

    Only prefixes of items are followed, so that every result is an item's code and none comes twice. `beams` prefixes
    are kept at every level but the last, where nothing is left to continue: all leaves of the kept prefixes count, so
    that the `beams` best of them are the result of a beam search, and no leaf takes the place of another.

    Args:
        writer: the model.
        memory: what it read.
        trie: codes of the catalogue.
        beams: prefixes kept at a level.
        normalize: probabilities over the codes that lead to an item, or over all codes.
    """
    scores = memory.layers[0][0].new_zeros((len(memory), 1))
    nodes = torch.full(scores.shape, ROOT, device=scores.device)
    cache: Cache = []
    for level in range(trie.levels):
        logits, cache = writer.next_codes(level, _last_codes(trie, nodes), cache, memory)
        children, gained = continuations(logits, nodes, level, trie, normalize)
        scores = (scores[:, :, None] + gained).flatten(1)
        nodes = children.flatten(1)
        if level < trie.levels - 1:
            scores, choices = scores.topk(min(beams, scores.shape[1]))
            nodes = nodes.gather(1, choices)
            cache = _rows(cache, choices // children.shape[2])
    # one column more takes what leads nowhere
    leaf_scores = torch.full((len(memory), trie.leaves + 1), -torch.inf, dtype=scores.dtype, device=scores.device)
    leaves = torch.where(nodes == NOWHERE, trie.leaves, nodes - trie.level_starts[-2])
    return leaf_scores.scatter_(1, leaves, scores)[:, :-1]


def exact_scores(writer: Writer, memory: Memory, trie: CodeTrie, normalize: Normalize, at_once: int = 16_384) -> Tensor:
    """(batch, leaves) log probabilities of all leaves: every prefix is written once, whatever follows from it.

    Args:
        writer: the model.
        memory: what it read.
        trie: codes of the catalogue.
        normalize: as in `beam_search`. Over the catalogue, prefixes of a single leaf need no further step.
        at_once: prefixes times batch entries that go through the decoder at once, which bounds memory.
    """
    start = memory.layers[0][0].new_zeros((len(memory), 1))
    leaf_scores = start.new_full((len(memory), trie.leaves), -torch.inf)
    most = max(1, at_once // max(1, len(memory)))
    sure = _single(trie) if normalize == "catalogue" else torch.zeros_like(trie.code, dtype=torch.bool)

    def follow(level: int, nodes: Tensor, scores: Tensor, cache: Cache) -> None:
        """Score all that is below nodes (prefixes,) of `level`, whose own scores are (batch, prefixes)."""
        logits, cache = writer.next_codes(level, _last_codes(trie, nodes).expand(len(memory), -1), cache, memory)
        children, gained = continuations(logits, nodes.expand(len(memory), -1), level, trie, normalize)
        parents, columns = (children[0] != NOWHERE).nonzero(as_tuple=True)
        scores, nodes = scores[:, parents] + gained[:, parents, columns], children[0, parents, columns]
        done = sure[nodes] | (level == trie.levels - 1)
        leaves = trie.leaf_of[trie.items[trie.first_item[nodes[done]]]] - trie.level_starts[-2]
        leaf_scores[:, leaves] = scores[:, done]
        left = (~done).nonzero()[:, 0]
        for some in parts(len(left), most):
            rows = parents[left[some]].expand(len(memory), -1)
            follow(level + 1, nodes[left[some]], scores[:, left[some]], _rows(cache, rows))

    root = torch.full((1,), ROOT, device=leaf_scores.device)
    follow(0, root, start, [])
    return leaf_scores


def reached_items(leaves: Tensor, trie: CodeTrie) -> Tensor:
    """(batch, items) which items of the catalogue the log probabilities of leaves (batch, leaves) reach."""
    return trie.to_items(leaves, -torch.inf) > -torch.inf


def item_scores(leaves: Tensor, trie: CodeTrie) -> Tensor:
    """(batch, items) scores of the catalogue from log probabilities of leaves (batch, leaves).

    Items with equal codes share the probability of their leaf evenly, and tie. What was not reached, or has no codes,
    shares the last place: one less than the lowest score of its row, a finite number, so that it still counts as a
    candidate.
    """
    shared = trie.item_count[trie.level_starts[-2] :].log()
    scores = trie.to_items(leaves - shared, -torch.inf)
    reached = reached_items(leaves, trie)
    lowest = scores.masked_fill(~reached, torch.inf).amin(1, keepdim=True)
    return torch.where(reached, scores, lowest - 1)


def keep_share(scores: Tensor, reached: Tensor, special: Tensor, share: float) -> Tensor:
    """Scores (batch, items) in which special items that were reached take at least a share of every list.

    The c-th best of them comes after at most c (1 - share) / share others (TIGER, section 4.3: at most a share epsilon
    of a list are items without training interactions; here they get it wherever enough of them were reached). Where
    the last others that may come before it tie with the next, it comes before all of these. Of special items that tie,
    the one with the lower number is the better: all in one place would take more than their share.

    Args:
        scores: see `item_scores`.
        reached: (batch, items) which items were reached; see `reached_items`.
        special: (items,) which items.
        share: above 0 and below 1.
    """
    order = scores[:, special].argsort(dim=1, descending=True, stable=True)
    mine = scores[:, special].gather(1, order)
    others = scores[:, ~special].sort(dim=1, descending=True).values
    if not mine.shape[1] or not others.shape[1]:
        return scores
    number = torch.arange(1, mine.shape[1] + 1, device=scores.device)
    before = (number * ((1 - share) / share)).floor().long().clamp_max(others.shape[1])
    # where the next other ties with some of these, how many come before all that tie
    place = torch.arange(others.shape[1], device=scores.device)
    new = torch.cat([torch.ones_like(others[:, :1], dtype=torch.bool), others[:, 1:] != others[:, :-1]], 1)
    first = torch.where(new, place, 0).cummax(1).values
    whole = torch.cat([first, torch.full_like(first[:, :1], others.shape[1])], 1)[:, before]
    above = torch.cat([others[:, :1] + 1, others], 1).gather(1, whole)
    # just below the last item that may come before, and below the special one before it
    turn = torch.arange(mine.shape[1], device=scores.device)
    raised = _from_steps((_steps(above) - 1 + turn).cummin(1).values - turn, above.dtype)
    indices = special.nonzero()[:, 0][order]
    mine = torch.where(reached.gather(1, indices), torch.maximum(mine, raised), mine)
    return scores.scatter(1, indices, mine)


def _steps(values: Tensor) -> Tensor:
    """Floats as whole numbers in the same order, neighbours one apart."""
    bits = values.contiguous().view(torch.int32 if values.dtype == torch.float32 else torch.int64).long()
    low = torch.iinfo(torch.int32 if values.dtype == torch.float32 else torch.int64).min
    return torch.where(bits >= 0, bits, low - bits)


def _from_steps(steps: Tensor, dtype: torch.dtype) -> Tensor:
    """What `_steps` made whole numbers of."""
    whole = torch.int32 if dtype == torch.float32 else torch.int64
    return torch.where(steps >= 0, steps, torch.iinfo(whole).min - steps).to(whole).view(dtype)


def continuations(
    logits: Tensor, nodes: Tensor, level: int, trie: CodeTrie, normalize: Normalize
) -> tuple[Tensor, Tensor]:
    """Children of nodes (batch, rows) and their log probabilities, (batch, rows, children) each; -inf for NOWHERE."""
    children, codes = trie.expand(nodes, level)
    nowhere = children == NOWHERE
    chosen = logits.gather(2, codes)
    if normalize == "catalogue":
        gained = chosen.masked_fill(nowhere, -torch.inf).log_softmax(2)
    else:
        gained = chosen - logits.logsumexp(2, keepdim=True)
    return children, gained.masked_fill(nowhere, -torch.inf)


def parts(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` rows."""
    return (slice(start, start + size) for start in range(0, count, size))


def _last_codes(trie: CodeTrie, nodes: Tensor) -> Tensor:
    """The last code of each prefix; 0 where there is none."""
    return trie.code[nodes.clamp_min(0)].clamp_min(0)


def _rows(cache: Cache, rows: Tensor) -> Cache:
    """The cache of other rows: row j of an entry is what row `rows[entry, j]` was."""
    entries = torch.arange(len(rows), device=rows.device)[:, None]
    return [(key[entries, rows], value[entries, rows]) for key, value in cache]


def _single(trie: CodeTrie) -> Tensor:
    """(nodes,) whether all items below a node share one leaf."""
    last = trie.first_item + trie.item_count - 1
    return trie.leaf_of[trie.items[trie.first_item]] == trie.leaf_of[trie.items[last]]
