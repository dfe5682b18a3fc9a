"""A mixture of experts whose gate is told by a context, and what keeps all of them in use."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.dropout import Dropout
from tessera.recommenders.item_encoders.parts import of_all_processes


class Mixed(NamedTuple):
    """What experts made of a step's vectors."""

    vectors: Tensor
    """(n, dim)."""
    gates: Tensor
    """(n, m, experts) weights; they sum to one over what is there."""


class Experts(nn.Module):
    """Several vectors a row, each through every expert; a gate over all of them together chooses."""

    def __init__(
        self,
        width: int,
        context: int,
        dim: int,
        experts: int,
        gate: Literal["context", "mean"],
        temperature: float,
        dropout: float,
    ) -> None:
        """
        Args:
            width: of a vector.
            context: width of what the gate is told beside it.
            dim: width of what the experts make.
            experts: how many.
            gate: `mean` weighs all alike.
            temperature: of the gate's softmax.
            dropout: behind the experts and in the gate.
        """
        super().__init__()
        self.experts, self.dim, self.temperature = experts, dim, temperature
        self.make = nn.Linear(width, experts * dim)
        self.dropout = Dropout(dropout)
        self.route: nn.Sequential | None = None
        if gate == "context":
            asked = width + context
            self.route = nn.Sequential(
                nn.LayerNorm(asked), nn.Linear(asked, width), nn.GELU(), Dropout(dropout), nn.LayerNorm(width),
                nn.Linear(width, experts),
            )  # fmt: skip

    def forward(self, vectors: Tensor, available: Tensor, context: Tensor) -> Mixed:
        """
        Args:
            vectors: (n, m, width).
            available: (n, m) bool, which there are. The others have no weight; where a row has none, all count.
            context: (n, context).
        """
        rows, number, _ = vectors.shape
        if self.route is None:
            logits = vectors.new_zeros(rows, number, self.experts)
        else:
            asked = torch.cat([vectors, context[:, None].expand(-1, number, -1)], 2)
            logits = self.route(asked).float() / self.temperature
        read = available | ~available.any(1, keepdim=True)  # the padding has none, and numbers none the less
        hidden = logits.masked_fill(~read[..., None], -torch.inf)
        gates = hidden.flatten(1).softmax(1).view_as(logits)
        made = self.dropout(self.make(vectors).relu()).view(rows, number, self.experts, self.dim)
        return Mixed(torch.einsum("nme,nmed->nd", gates.to(made.dtype), made), gates)


class Use(NamedTuple):
    """How the experts are used."""

    balance: Tensor
    """() experts times the sum over experts of share times mean weight, summed over rows: a row's is 1 at balance, and
    most of what it can be where one expert does all."""
    shares: Tensor
    """(experts,) share of the rows, of all processes, that give an expert most weight."""
    entropy: Tensor
    """() entropy of each row's weights of the experts in nats, summed over rows."""


def use_of(gates: Tensor) -> Use:
    """How gates (n, m, experts) use the experts (Fedus et al., Switch Transformers, JMLR 2022).

    Which expert has most weight has no gradient; the weights have, and are drawn away from what is used much. Shares
    are of all processes, so that a step among several is the same step.
    """
    experts = gates.shape[2]
    weights = gates.sum(1)
    chosen = of_all_processes(weights.detach().argmax(1))
    shares = F.one_hot(chosen, experts).to(weights.dtype).mean(0)
    entropy = entropy_of(weights.detach()).sum()
    return Use(experts * (weights * shares).sum(), shares, entropy)


def entropy_of(shares: Tensor) -> Tensor:
    """(...) entropy in nats of shares (..., n) that sum to one."""
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy
