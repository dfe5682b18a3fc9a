"""TIGER: an encoder-decoder that reads the codes of a history and writes those of the next item.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023, section 3.2: a sequence of items is the
sequence of their codes, each level with tokens of its own, after a token of the user; the target is the code of the
next item, and the loss the cross-entropy of its tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.artifacts.codes import ABSENT, SemanticIds, read_codes
from tessera.artifacts.logs import log
from tessera.evaluation.histories import Histories
from tessera.recommenders.decoding import (
    beam_search,
    continuations,
    exact_scores,
    item_scores,
    keep_share,
    reached_items,
)
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import UNSCORED, Recommender, TrainingHistories
from tessera.recommenders.t5 import START, Cache, Decoder, Encoder, Memory, T5Shape, hidden
from tessera.recommenders.trie import CodeTrie
from tessera.settings.runs import Run
from tessera.settings.systems.tiger import TIGERSystem
from tessera.training.batches import PrefixBatches, WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import Position

USERS_AT_ONCE = 64
"""Users that are decoded together: more are no faster on a CPU, and a GPU is busy with their beams."""
PREFIXES_AT_ONCE = 16_384
"""Prefixes times users that go through the decoder together when all are scored."""
LOGITS = 1 << 26
"""Most logits at a time. With a token a prefix, the last level has as many as there are items."""


class CodeTokens(nn.Module):
    """Vectors of the tokens: one for what has no codes, then those of each level."""

    def __init__(self, codes: Tensor, sizes: tuple[int, ...], dim: int) -> None:
        """
        Args:
            codes: (items + 1, levels); negative where an item has none.
            sizes: codes of a level.
            dim: width of vectors.
        """
        super().__init__()
        starts = torch.tensor([1, *sizes]).cumsum(0)
        self.starts = starts.tolist()
        self.register_buffer("tokens", torch.where(codes < 0, 0, codes + starts[:-1]), persistent=False)
        self.tokens: Tensor
        self.weight = nn.Parameter(torch.randn(self.starts[-1], dim) * START)
        self.scale = dim**0.5  # read so much louder than scored with: training then moves what is read enough

    def forward(self, items: Tensor) -> Tensor:
        """(batch, length x levels, dim) of items (batch, length)."""
        vectors: Tensor = F.embedding(self.tokens[items].flatten(1), self.weight) * self.scale
        return vectors

    def read(self, codes: Tensor, level: int) -> Tensor:
        """(..., dim) of codes (...) of a level."""
        vectors: Tensor = F.embedding(codes, self.level(level)) * self.scale
        return vectors

    def level(self, number: int) -> Tensor:
        """(codes, dim) of a level, as codes are scored with."""
        return self.weight[self.starts[number] : self.starts[number + 1]]


class TIGER(Recommender):
    """Reads histories as codes, writes the code of the next item."""

    unscored = UNSCORED

    def __init__(self, settings: TIGERSystem, ids: SemanticIds, popularity: np.ndarray) -> None:
        super().__init__()
        self.settings = settings
        rows, sizes = ids.of(0), ids.parts[0].sizes
        if settings.tokens == "prefixes":
            rows, sizes = prefixes_as_codes(rows, sizes)
        codes = torch.from_numpy(rows)
        shape = T5Shape(
            settings.dim, settings.inner_dim, settings.layers, settings.heads, settings.head_dim, settings.dropout
        )
        self.items = CodeTokens(codes, sizes, settings.dim)
        causal = settings.encoder == "causal"
        self.start = nn.Parameter(torch.randn(settings.dim) * START)
        self.end = None if causal else nn.Parameter(torch.randn(settings.dim) * START)
        self.output = None if settings.tied else nn.Parameter(torch.randn(sum(sizes), settings.dim) * START)
        width = settings.heads if causal else settings.dim
        self.positions = nn.Parameter(torch.randn(settings.max_length, width) * START) if settings.recency else None
        self.users = nn.Embedding(settings.user_tokens, settings.dim) if settings.user_tokens else None
        self.encoder = Encoder(shape, causal)
        self.decoder = Decoder(shape)
        self.trie = CodeTrie(rows, sizes)
        self.register_buffer("codes", codes, persistent=False)
        self.codes: Tensor
        self.register_buffer("cold", torch.from_numpy(popularity[1:] == 0), persistent=False)
        self.cold: Tensor
        self.max_history = settings.max_length
        widest = max(after - before for before, after in pairwise(self.items.starts))
        self.prefixes_at_once = max(1, min(PREFIXES_AT_ONCE, LOGITS // widest))
        each = 1 if settings.scoring == "exact" else settings.beams
        self.users_at_once = max(1, min(USERS_AT_ONCE, LOGITS // (widest * each)))

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> TIGER:
        """See `Recommender.build`.

        Raises:
            ValueError: the semantic IDs have several parts, or no item has any.
        """
        assert isinstance(run.method, TIGERSystem)
        assert inputs.codes is not None
        ids = read_codes(inputs.codes, len(popularity) - 1)
        if len(ids.parts) != 1:
            raise ValueError(
                f"{inputs.codes}: has codes of {len(ids.parts)} tables ({', '.join(part.name for part in ids.parts)}), "
                f"but TIGER writes one code an item; choose a quantizer that makes one code of several tables"
            )
        absent = np.flatnonzero(~ids.present(0)[1:]) + 1
        if len(absent):
            log.warning(
                "%s: %d of %d items have no codes (the first is item %d): they are neither trained on as targets nor "
                "ever recommended, and share one token in histories",
                inputs.codes, len(absent), len(popularity) - 1, absent[0],
            )  # fmt: skip
        return cls(run.method, ids, popularity)

    def item_rows(self) -> Collection[str]:
        """Nothing: its vectors are of codes.

        Raises:
            ValueError: users are hashed by their numbers, or prefixes numbered: both anew with every dataset.
        """
        if self.users is not None:
            raise ValueError("user_tokens: users have other numbers, and so other tokens, in another dataset")
        if self.settings.tokens == "prefixes":
            raise ValueError("tokens: prefixes are numbered by the items that there are; codes are not")
        return []

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Every training item that has codes, but for a history's first, as one target after the items before it.

        `training.batch_tokens` counts code tokens: those of the histories and, where these are read anew for every
        target, of the targets.
        """
        budget = max(1, run.training.batch_tokens // self.trie.levels)
        offsets, items, size = histories.offsets, histories.items, self.settings.max_length
        if self.encoder.causal:
            return WindowBatches(offsets, items, size + 1, 1, budget)
        known = (self.codes[:, 0] >= 0).cpu().numpy()
        return PrefixBatches(offsets, items, size, budget, known)

    def read(self, histories: Tensor, lengths: Tensor, users: Tensor | None) -> Memory:
        """What the decoder reads of histories (batch, length), padded on the right, of lengths (batch,) above 0.

        An item without codes, and the padding item that stands for an empty history, have a token of their own. Where
        every token sees all others, one more ends the sequence, as T5's do; it is then the end that is remembered.
        """
        x = self._vectors(histories)
        each = x.shape[1] // histories.shape[1]  # positions of an item
        ends = lengths * each
        if self.encoder.causal:
            states = self.encoder(x, torch.ones_like(x[..., 0], dtype=torch.bool))
            ages = (lengths[:, None] - 1 - torch.arange(histories.shape[1], device=x.device))[:, None]
            return self._remember(states, self._by_age(ages, each), ends - 1)
        positions = torch.arange(x.shape[1] + 1, device=x.device)
        if self.positions is not None:
            x = x + F.embedding((lengths[:, None] - 1 - positions[:-1] // each).clamp_min(0), self.positions)
        assert self.end is not None
        x = torch.where((positions == ends[:, None])[:, :, None], self.end, F.pad(x, (0, 0, 0, 1)))
        visible = positions <= ends[:, None]
        if self.users is not None:
            assert users is not None
            x = torch.cat([self.users(users % self.users.num_embeddings)[:, None], x], 1)
            visible, ends = F.pad(visible, (1, 0), value=True), ends + 1
        return self._remember(self.encoder(x, visible), hidden(visible), ends)

    def _vectors(self, histories: Tensor) -> Tensor:
        """(batch, positions, dim) of histories (batch, length): a position a code or an item."""
        x: Tensor = self.items(histories)
        return x.view(*histories.shape, self.trie.levels, x.shape[-1]).sum(2) if self.settings.pool_items else x

    def _remember(self, states: Tensor, bias: Tensor, ends: Tensor) -> Memory:
        last = states[torch.arange(len(states), device=states.device), ends] if self.settings.summary else None
        return self.decoder.remember(states, bias, last)

    def _by_age(self, ages: Tensor, each: int) -> Tensor:
        """(batch, heads or 1, queries, positions) what attention adds for items of ages (batch, queries, items).

        Items of a negative age, later than the query, are hidden.
        """
        bias = torch.zeros(ages.shape, device=ages.device)[:, None]
        if self.positions is not None:
            bias = F.embedding(ages.clamp(0, len(self.positions) - 1), self.positions).permute(0, 3, 1, 2)
        return bias.masked_fill(ages[:, None] < 0, -torch.inf).repeat_interleave(each, 3)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of a target is the sum of the cross-entropies of its codes: each over the codes that lead to an item
        (`loss: catalogue`), or over all codes of its level, as in the paper (`loss: vocabulary`).

        Args:
            histories: with their targets. With a causal encoder every item with codes but the first is a target.
            at: where training stands.
        """
        if self.encoder.causal:
            read, targets = histories.items[:, :-1], histories.items[:, 1:].flatten()
            x = self._vectors(read)
            each = x.shape[1] // read.shape[1]
            states = self.encoder(x, torch.ones_like(x[..., 0], dtype=torch.bool))
            positions = torch.arange(read.shape[1], device=x.device)
            bias = self._by_age((positions[:, None] - positions)[None], each).repeat_interleave(self.trie.levels, 2)
            memory = self.decoder.remember(states, bias, states[:, each - 1 :: each].flatten(0, 1))
        else:
            assert histories.targets is not None
            targets = histories.targets
            memory = self.read(histories.items, histories.lengths, histories.users)
        begin = self._begin(memory).expand(len(targets), -1)[:, None]
        x = torch.cat([begin, self.items(targets[:, None])[:, :-1]], 1)
        known = (self.codes[targets, 0] >= 0).nonzero()[:, 0]
        states, nodes = self.decoder(x, memory)[known], self._path(targets[known])
        total = states.new_zeros(())
        for level in range(self.trie.levels):
            logits = self._logits(states[:, None, level], level)
            before, after = nodes[:, level], nodes[:, level + 1]
            _, gained = continuations(logits, before[:, None], level, self.trie, self.settings.loss)
            total = total - gained[:, 0].gather(1, (after - self.trie.first_child[before])[:, None]).sum()
        return {"codes": Term(total, torch.full((), len(known), device=total.device))}

    def score(self, histories: Histories, prepared: None) -> Tensor:
        """See `Recommender.score`: what is decoded, a part of the users at a time."""
        return torch.cat([self._score(part)[0] for part in histories.split(self.users_at_once)])

    def score_known(self, histories: Histories, prepared: None) -> Tensor:
        """See `Recommender.score_known`: what no beam reached, and what has no codes, is not known."""
        parts = map(self._score, histories.split(self.users_at_once))
        return torch.cat([torch.where(reached, scores, self.unscored) for scores, reached in parts])

    def _score(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """(batch, items) finite scores, and which items were reached."""
        settings = self.settings
        memory = self.read(histories.items, histories.lengths, histories.users)
        if settings.scoring == "exact":
            leaves = exact_scores(self, memory, self.trie, settings.normalize, self.prefixes_at_once)
        else:
            leaves = beam_search(self, memory, self.trie, settings.beams, settings.normalize)
        scores, reached = item_scores(leaves, self.trie), reached_items(leaves, self.trie)
        if settings.cold_share:
            scores = keep_share(scores, reached, self.cold, settings.cold_share)
        return scores, reached

    def _begin(self, memory: Memory) -> Tensor:
        """(batch or 1, dim) the vector that what is written begins with."""
        return self.start[None] + memory.last if self.settings.summary and memory.last is not None else self.start[None]

    def _path(self, items: Tensor) -> Tensor:
        """(batch, levels + 1) the nodes from the root to the leaves of items (batch,)."""
        nodes = [self.trie.leaf_of[items]]
        for _ in range(self.trie.levels):
            nodes.append(self.trie.parent[nodes[-1]])
        return torch.stack(nodes[::-1], 1)

    def next_codes(self, level: int, codes: Tensor, cache: Cache, memory: Memory) -> tuple[Tensor, Cache]:
        """See `decoding.Writer`."""
        x = self.items.read(codes, level - 1) if level else self._begin(memory)[:, None].expand(*codes.shape, -1)
        states, cache = self.decoder.step(x, cache, memory)
        return self._logits(states, level), cache

    def _logits(self, states: Tensor, level: int) -> Tensor:
        starts = self.items.starts
        own = self.output
        codes = self.items.level(level) if own is None else own[starts[level] - 1 : starts[level + 1] - 1]
        logits: Tensor = states @ codes.T
        return logits


def prefixes_as_codes(codes: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """The same tree of codes (items + 1, levels) with a code of its own for every prefix, and their number a level."""
    trie = CodeTrie(codes, sizes)
    leaves = trie.leaf_of.numpy()
    starts = np.array(trie.level_starts[1:-1])
    known = leaves >= 0
    rows = np.full(codes.shape, ABSENT, np.int64)
    nodes = torch.from_numpy(leaves[known])
    for level in reversed(range(trie.levels)):
        rows[known, level] = nodes.numpy() - starts[level]
        nodes = trie.parent[nodes]
    return rows, tuple(int(count) for count in np.diff(trie.level_starts[1:]))
