"""TIGER: an encoder-decoder that reads the codes of a history and writes those of the next item.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023, section 3.2: a sequence of items is the
sequence of their codes, each level with tokens of its own, after a token of the user; the target is the code of the
next item, and the loss the cross-entropy of its tokens.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.artifacts.codes import SemanticIds, read_codes
from tessera.artifacts.logs import log
from tessera.recommenders.decoding import beam_search, continuations, exact_scores, item_scores, keep_share, parts
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.t5 import Cache, Decoder, Encoder, Memory, T5Shape
from tessera.recommenders.trie import CodeTrie
from tessera.settings.systems import Run, TIGERSystem
from tessera.training.batches import PrefixBatches

USERS_AT_ONCE = 64
"""Users that are decoded together: more are no faster on a CPU, and a GPU is busy with their beams."""


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
        self.places = starts.tolist()
        self.register_buffer("tokens", torch.where(codes < 0, 0, codes + starts[:-1]), persistent=False)
        self.tokens: Tensor
        self.weight = nn.Parameter(torch.randn(self.places[-1], dim))

    def forward(self, items: Tensor) -> Tensor:
        """(batch, length x levels, dim) of items (batch, length)."""
        return F.embedding(self.tokens[items].flatten(1), self.weight)

    def level(self, number: int) -> Tensor:
        """(codes, dim) of a level."""
        return self.weight[self.places[number] : self.places[number + 1]]


class TIGER(nn.Module):
    """Reads histories as codes, writes the code of the next item."""

    def __init__(self, settings: TIGERSystem, ids: SemanticIds, popularity: np.ndarray) -> None:
        super().__init__()
        self.settings = settings
        sizes = ids.parts[0].sizes
        codes = torch.from_numpy(ids.of(0))
        shape = T5Shape(
            settings.dim, settings.inner_dim, settings.layers, settings.heads, settings.head_dim, settings.dropout
        )
        self.items = CodeTokens(codes, sizes, settings.dim)
        self.start = nn.Parameter(torch.randn(settings.dim))
        self.end = nn.Parameter(torch.randn(settings.dim))
        # of its own, as in T5 1.1: token vectors that are the output layer too learned more slowly
        self.output = nn.Parameter(torch.randn(sum(sizes), settings.dim) * settings.dim**-0.5)
        self.positions = nn.Parameter(torch.randn(settings.max_length, settings.dim)) if settings.recency else None
        self.users = nn.Embedding(settings.user_tokens, settings.dim) if settings.user_tokens else None
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.trie = CodeTrie(ids.of(0), sizes)
        self.register_buffer("codes", codes, persistent=False)
        self.codes: Tensor
        self.register_buffer("cold", torch.from_numpy(popularity[1:] == 0), persistent=False)
        self.cold: Tensor

    def read(self, histories: Tensor, lengths: Tensor, users: Tensor | None) -> Memory:
        """What the decoder reads of histories (batch, length), padded on the right, of lengths (batch,) above 0.

        An item without codes, and the padding item that stands for an empty history, have a token of their own. A token
        ends the sequence, as T5's do.
        """
        x = self.items(histories)
        if self.settings.pool_items:
            x = x.unflatten(1, (-1, self.trie.levels)).sum(2)
        each = x.shape[1] // histories.shape[1]  # positions of an item
        places = torch.arange(x.shape[1] + 1, device=x.device)
        if self.positions is not None:
            ages = (lengths[:, None] - 1 - places[:-1] // each).clamp_min(0)
            x = x + F.embedding(ages, self.positions)
        ends = (lengths * each)[:, None]
        x = torch.where((places == ends)[:, :, None], self.end, F.pad(x, (0, 0, 0, 1)))
        visible = places <= ends
        if self.users is not None:
            assert users is not None
            x = torch.cat([self.users(users % self.users.num_embeddings)[:, None], x], 1)
            visible = F.pad(visible, (1, 0), value=True)
        return self.decoder.remember(self.encoder(x, visible), visible)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the losses over targets, and the number of targets.

        The loss of a target is the sum of the cross-entropies of its codes: each over the codes that lead to an item
        (`loss: catalogue`), or over all codes of its level, as in the paper (`loss: vocabulary`).

        Args:
            batch: (targets, 1 + length) as `PrefixBatches` gives it: user, history, target, zeros.
        """
        users, rows = batch[:, 0], batch[:, 1:]
        lengths = (rows > 0).sum(1) - 1
        targets = rows.gather(1, lengths[:, None])
        histories = rows.scatter(1, lengths[:, None], 0)[:, :-1]
        memory = self.read(histories, lengths, users)
        x = torch.cat([self.start.expand(len(batch), 1, -1), self.items(targets)[:, :-1]], 1)
        states = self.decoder(x, memory)
        nodes = self._path(targets[:, 0])
        total = states.new_zeros(())
        for level in range(self.trie.levels):
            logits = self._logits(states[:, None, level], level)
            before, after = nodes[:, level], nodes[:, level + 1]
            _, gained = continuations(logits, before[:, None], level, self.trie, self.settings.loss)
            total = total - gained[:, 0].gather(1, (after - self.trie.first_child[before])[:, None]).sum()
        return total, torch.tensor(len(batch), device=batch.device)

    def _path(self, items: Tensor) -> Tensor:
        """(batch, levels + 1) the nodes from the root to the leaves of items (batch,)."""
        found = [self.trie.leaf_of[items]]
        for _ in range(self.trie.levels):
            found.append(self.trie.parent[found[-1]])
        return torch.stack(found[::-1], 1)

    def next_codes(self, level: int, codes: Tensor, cache: Cache, memory: Memory) -> tuple[Tensor, Cache]:
        """See `decoding.Writer`."""
        x = F.embedding(codes, self.items.level(level - 1)) if level else self.start.expand(*codes.shape, -1)
        states, cache = self.decoder.step(x, cache, memory)
        return self._logits(states, level), cache

    def _logits(self, states: Tensor, level: int) -> Tensor:
        places = self.items.places
        logits: Tensor = states @ self.output[places[level] - 1 : places[level + 1] - 1].T
        return logits


class TIGERScorer:
    """A trained model behind the judge's interface."""

    def __init__(self, model: TIGER, device: torch.device) -> None:
        self.model = model.eval()
        self.device = device
        self.max_history: int | None = model.settings.max_length
        self.reads_users = model.users is not None

    @torch.no_grad()
    def __call__(self, histories: np.ndarray, lengths: np.ndarray, users: np.ndarray | None = None) -> Tensor:
        """(batch, items) scores for histories (batch, length) padded on the right."""
        found = []
        for part in parts(len(histories), USERS_AT_ONCE):
            rows = torch.from_numpy(histories[part, : max(1, int(lengths[part].max()))]).long().to(self.device)
            who = None if users is None else torch.from_numpy(users[part]).long().to(self.device)
            found.append(self._score(rows, torch.from_numpy(lengths[part]).to(self.device), who))
        return torch.cat(found)

    def _score(self, histories: Tensor, lengths: Tensor, users: Tensor | None) -> Tensor:
        model, settings = self.model, self.model.settings
        memory = model.read(histories, lengths, users)
        if settings.scoring == "exact":
            leaves = exact_scores(model, memory, model.trie, settings.normalize)
        else:
            leaves = beam_search(model, memory, model.trie, settings.beams, settings.normalize)
        scores = item_scores(leaves, model.trie)
        return keep_share(scores, model.cold, settings.cold_share) if settings.cold_share else scores


def build(run: Run, inputs: RunInputs, popularity: np.ndarray) -> TIGER:
    """The untrained model; the caller has seeded torch.

    Raises:
        ValueError: the semantic IDs have several parts, or no item has any.
    """
    assert isinstance(run.method, TIGERSystem)
    assert inputs.codes is not None
    ids = read_codes(inputs.codes, len(popularity) - 1)
    if len(ids.parts) != 1:
        raise ValueError(
            f"{inputs.codes}: has codes of {len(ids.parts)} tables ({', '.join(part.name for part in ids.parts)}), but "
            f"TIGER writes one code an item; choose a quantizer that makes one code of several tables"
        )
    absent = np.flatnonzero(~ids.present(0)[1:]) + 1
    if len(absent):
        log.warning(
            "%s: %d of %d items have no codes (the first is item %d): they are neither trained on as targets nor ever "
            "recommended, and share one token in histories",
            inputs.codes, len(absent), len(popularity) - 1, absent[0],
        )  # fmt: skip
    return TIGER(run.method, ids, popularity)


def batches(model: TIGER, run: Run, offsets: np.ndarray, items: np.ndarray) -> PrefixBatches:
    """Every training item that has codes, but for a history's first, as one target after the items before it.

    `training.batch_tokens` counts code tokens: those of the histories and of the targets.
    """
    budget = max(1, run.training.batch_tokens // model.trie.levels)
    known = (model.codes[:, 0] >= 0).cpu().numpy()
    return PrefixBatches(offsets, items, model.settings.max_length, budget, known)


def scorer(model: TIGER, run: Run, device: torch.device) -> TIGERScorer:
    """The model as the judge asks it."""
    return TIGERScorer(model.to(device), device)
