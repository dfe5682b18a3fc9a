"""GRU4Rec: recurrent recommendation (Hidasi et al., ICLR 2016).

Trained on whole histories with a full softmax instead of session-parallel mini-batches with in-batch negatives: the
same model without the published sampling limits (Petrov and Macdonald 2022 show how much that matters).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import initialise
from tessera.recommenders.backbones.base import CausalBackbone, Examples
from tessera.recommenders.backbones.dropout import Dropout
from tessera.settings.backbones.gru4rec import GRU4RecSettings


class GRU4Rec(CausalBackbone):
    """A gated recurrent unit over the items of a history, projected back to the width of items."""

    def __init__(self, settings: GRU4RecSettings) -> None:
        super().__init__()
        self.dim = settings.dim
        self.max_length = settings.max_length
        self.last_only = settings.targets == "last"
        self.dropout = Dropout(settings.dropout)
        self.norm_in = nn.LayerNorm(settings.dim)
        self.recurrent = nn.GRU(settings.dim, settings.hidden_dim, settings.layers, batch_first=True)
        self.project = nn.Linear(settings.hidden_dim, settings.dim)
        self.norm = nn.LayerNorm(settings.dim)
        initialise(self, std=0.02)

    def hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, dim) states; what runs on over the padding on the right is never read."""
        read = self.dropout(self.norm_in(inputs))
        # under autocast cuDNN would run it in float16, and nothing scales the loss for that
        with torch.autocast(inputs.device.type, enabled=False):
            states, _ = self.recurrent(read.to(self.norm_in.weight.dtype))
        out: Tensor = self.norm(self.project(self.dropout(states)))
        return out

    def examples(
        self, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None, times: Tensor | None = None
    ) -> Examples:
        """Every item but the first is predicted from the state before it; with `targets: last`, only the last."""
        examples = super().examples(histories, vectors, drawn, times)
        if not self.last_only:
            return examples
        last = examples.owners.diff(append=examples.owners.new_tensor([-1])) != 0
        return Examples(*(part[last] for part in examples))
