"""T5's encoder and decoder (Raffel et al., JMLR 2020), without its vocabulary: vectors in, states out.

Norms before layers without centring, distances between tokens as biases of attention, no other biases, no scaling of
attention logits. The decoder also goes one token at a time for many rows that continue one another (`step`), with the
keys of what it reads made once a row of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tessera.recommenders.backbones.dropout import Dropout

START = 0.02
"""Standard deviation of first weights."""

Cache = list[tuple[Tensor, Tensor]]
"""A layer's keys and values of what was written so far, (batch, rows, heads, written, head_dim) each."""


@dataclass(frozen=True)
class T5Shape:
    """Sizes of an encoder or a decoder."""

    dim: int
    inner_dim: int
    layers: int
    heads: int
    head_dim: int
    dropout: float = 0.0


@dataclass(frozen=True)
class Memory:
    """What the decoder reads: a layer's keys and values, (batch, heads, length, head_dim) each."""

    layers: list[tuple[Tensor, Tensor]]
    bias: Tensor
    """(batch, heads or 1, queries or 1, length) of attention logits: -inf where there is nothing to read."""
    last: Tensor | None = None
    """(batch, dim) the encoder's states of the ends of what was read."""

    def __len__(self) -> int:
        return len(self.bias)


class RMSNorm(nn.Module):
    """Scales a vector to unit mean square, then by a weight an element (T5's layer norm)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as `x`."""
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class RelativePositions(nn.Module):
    """A bias of attention for every distance: exact for near tokens, in logarithmic steps for far ones."""

    BUCKETS, FARTHEST = 32, 128

    def __init__(self, heads: int, dim: int, both_sides: bool) -> None:
        super().__init__()
        self.both_sides = both_sides
        self.weight = nn.Parameter(torch.randn(self.BUCKETS, heads) * START)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(heads, queries, keys) biases for positions (queries,) and (keys,)."""
        distance = keys - queries[:, None]
        buckets = self.BUCKETS // 2 if self.both_sides else self.BUCKETS
        later = (distance > 0) * buckets if self.both_sides else 0
        distance = distance.abs() if self.both_sides else (-distance).clamp_min(0)
        exact = buckets // 2
        steps = torch.log(distance.clamp_min(1) / exact) / math.log(self.FARTHEST / exact) * (buckets - exact)
        far = (exact + steps.long()).clamp_max(buckets - 1)
        return self.weight[later + torch.where(distance < exact, distance, far)].permute(2, 0, 1)


class Attention(nn.Module):
    """Multi-head attention whose logits are not scaled; its first weights are small instead."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.heads, self.head_dim = shape.heads, shape.head_dim
        width = shape.heads * shape.head_dim
        self.query = _linear(shape.dim, width)
        self.key = _linear(shape.dim, width)
        self.value = _linear(shape.dim, width)
        self.out = _linear(width, shape.dim)
        self.dropout = Dropout(shape.dropout)

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, width) as (batch, heads, length, head_dim)."""
        return x.view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (batch, length, dim): (batch, heads, length, head_dim) each."""
        return self.split(self.key(x)), self.split(self.value(x))

    def weigh(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """(..., heads, queries, head_dim) mixtures of values (..., heads, length, head_dim)."""
        weights = torch.softmax(query @ key.transpose(-1, -2) + bias, -1)
        mixed: Tensor = self.dropout(weights) @ value
        return mixed

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """(batch, queries, dim) for the same, looking at keys and values (batch, heads, length, head_dim)."""
        out: Tensor = self.out(self.weigh(self.split(self.query(x)), key, value, bias).transpose(1, 2).flatten(2))
        return out

    def step(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """(batch, rows, dim): one query a row, each with keys of its own (batch, rows, heads, length, head_dim)."""
        query = self.query(x).view(*x.shape[:2], self.heads, 1, self.head_dim)
        out: Tensor = self.out(self.weigh(query, key, value, bias).flatten(2))
        return out


class FeedForward(nn.Module):
    """Out, through ReLU, and back."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.inner = _linear(shape.dim, shape.inner_dim)
        self.out = _linear(shape.inner_dim, shape.dim)
        self.dropout = Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same."""
        y: Tensor = self.out(self.dropout(torch.relu(self.inner(x))))
        return y


class Block(nn.Module):
    """Self-attention, attention to what was read (decoder only) and a feed-forward layer, each around a residual."""

    def __init__(self, shape: T5Shape, reads: bool) -> None:
        super().__init__()
        self.own_norm, self.own = RMSNorm(shape.dim), Attention(shape)
        self.read_norm = RMSNorm(shape.dim) if reads else None
        self.read = Attention(shape) if reads else None
        self.inner_norm, self.inner = RMSNorm(shape.dim), FeedForward(shape)
        self.dropout = Dropout(shape.dropout)

    def forward(self, x: Tensor, bias: Tensor, memory: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """(batch, length, dim) to the same.

        Args:
            x: inputs.
            bias: (heads or batch x heads, length, length) of attention logits, -inf where nothing may be seen.
            memory: keys, values and bias of what was read.
        """
        normed = self.own_norm(x)
        x = x + self.dropout(self.own(normed, *self.own.keys(normed), bias))
        return self._rest(x, memory)

    def step(
        self, x: Tensor, bias: Tensor, past: tuple[Tensor, Tensor] | None, memory: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next token of rows (batch, rows, dim), and keys and values with it appended to those of the past."""
        normed = self.own_norm(x)
        each = (*x.shape[:2], self.own.heads, 1, self.own.head_dim)
        key, value = self.own.key(normed).view(each), self.own.value(normed).view(each)
        if past is not None:
            key, value = torch.cat([past[0], key], 3), torch.cat([past[1], value], 3)
        x = x + self.dropout(self.own.step(normed, key, value, bias))
        return self._rest(x, memory), (key, value)

    def _rest(self, x: Tensor, memory: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        if memory is not None:
            assert self.read_norm is not None
            assert self.read is not None
            entries = len(memory[0])  # rows that read the same ask one after another
            each = x[..., 0].numel() // entries if entries else memory[2].shape[2]
            queries = self.read_norm(x).reshape(entries, each, x.shape[-1])
            x = x + self.dropout(self.read(queries, *memory).view_as(x))
        y: Tensor = x + self.dropout(self.inner(self.inner_norm(x)))
        return y


class Encoder(nn.Module):
    """Reads a sequence, every token seeing all others, or those before it alone."""

    def __init__(self, shape: T5Shape, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.positions = RelativePositions(shape.heads, shape.dim, both_sides=not causal)
        self.blocks = nn.ModuleList(Block(shape, reads=False) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.dim)
        self.dropout = Dropout(shape.dropout)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """States (batch, length, dim) of vectors of the same shape.

        Args:
            x: token vectors.
            visible: (batch, length) which may be looked at; the first of every row may.
        """
        positions = torch.arange(x.shape[1], device=x.device)
        bias = self.positions(positions, positions) + hidden(visible)
        if self.causal:
            bias = bias.masked_fill(positions > positions[:, None], -torch.inf)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, bias)
        states: Tensor = self.dropout(self.norm(x))
        return states


class Decoder(nn.Module):
    """Writes a sequence, every token seeing what was read and the tokens before it."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.positions = RelativePositions(shape.heads, shape.dim, both_sides=False)
        self.blocks = nn.ModuleList(Block(shape, reads=True) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.dim)
        self.dropout = Dropout(shape.dropout)

    def remember(self, states: Tensor, bias: Tensor, last: Tensor | None = None) -> Memory:
        """What the decoder reads of encoder states (batch, length, dim); see `Memory`."""
        return Memory([block.read.keys(states) for block in self.blocks], bias, last)  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """States (rows, length, dim) of all tokens at once: to train.

        Args:
            x: (rows, length, dim) vectors of tokens; as many rows for every entry of the memory, one after another.
            memory: what they read, with biases of all tokens of an entry or of none in particular.
        """
        positions = torch.arange(x.shape[1], device=x.device)
        unseen = positions > positions[:, None]
        bias = self.positions(positions, positions).masked_fill(unseen, -torch.inf)
        x = self.dropout(x)
        for block, (key, value) in zip(self.blocks, memory.layers, strict=True):
            x = block(x, bias, (key, value, memory.bias))
        states: Tensor = self.dropout(self.norm(x))
        return states

    def step(self, x: Tensor, cache: Cache, memory: Memory) -> tuple[Tensor, Cache]:
        """States (batch, rows, dim) of the next token of every row, and the cache with it.

        Args:
            x: (batch, rows, dim) the token's vectors.
            cache: of the rows' earlier tokens; empty for the first token.
            memory: what all rows of a batch entry read.
        """
        positions = torch.arange(cache[0][0].shape[3] + 1 if cache else 1, device=x.device)
        bias = self.positions(positions[-1:], positions)
        x = self.dropout(x)
        grown: Cache = []
        for number, (block, (key, value)) in enumerate(zip(self.blocks, memory.layers, strict=True)):
            past = cache[number] if cache else None
            x, written = block.step(x, bias, past, (key, value, memory.bias))  # type: ignore[operator]
            grown.append(written)
        return self.dropout(self.norm(x)), grown


def hidden(visible: Tensor) -> Tensor:
    """(batch, 1, 1, length) bias that hides what is not visible (batch, length)."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -torch.inf)[:, None, None]


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    # T5 starts each layer as loud as what it is added to: the vectors of the tokens then drown, and training is slow
    nn.init.normal_(layer.weight, std=START)
    return layer
