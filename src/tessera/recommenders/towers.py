"""What PAD is put together from: items as ID and text, projected text, and the gate between its towers."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.dropout import Dropout
from tessera.recommenders.inputs import Table
from tessera.recommenders.item_encoders.ids import IdItemEncoder
from tessera.recommenders.item_encoders.table import TableItemEncoder
from tessera.recommenders.missing import Lost
from tessera.recommenders.popularity_bins import popularity_bins
from tessera.settings.items.table import TableItems
from tessera.settings.systems.pad import Expert, PADSystem


class AlignedItems(nn.Module):
    """Items as an ID vector fused with what the table says of them."""

    def __init__(self, settings: PADSystem, ids: IdItemEncoder, text: TableItemEncoder, dim: int) -> None:
        super().__init__()
        self.ids, self.text = ids, text
        self.dropout = Dropout(settings.dropout)
        self.fusion = None if settings.fusion == "add" else nn.Linear(2 * dim, dim)
        self.activation = nn.GELU() if settings.fusion == "concat_gelu" else nn.Identity()
        if self.fusion is not None:
            nn.init.zeros_(self.fusion.bias)
            if settings.fusion == "concat_gelu":
                nn.init.xavier_normal_(self.fusion.weight)
            else:  # the ID vector as it is, and half of what the text says
                with torch.no_grad():
                    self.fusion.weight.copy_(torch.cat([torch.eye(dim), torch.eye(dim) / 2], 1))

    def parts(self) -> tuple[Tensor, Tensor]:
        """(items + 1, dim) ID vectors and (items + 1, dim) projected text: what is aligned."""
        return self.ids(), self.text()

    def fuse(self, ids: Tensor, text: Tensor) -> Tensor:
        """(items + 1, dim) the vectors of the tower."""
        if self.fusion is None:
            text = self.dropout(text)
            return ids + text
        fused: Tensor = self.activation(self.fusion(self.dropout(torch.cat([ids, text], 1))))
        return fused

    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors; row 0 is the padding."""
        return self.fuse(*self.parts())


class Gate(nn.Module):
    """w_t(b) = sigmoid(a_t[b]) / sum over towers r of sigmoid(a_r[b]), b the popularity bin of an item."""

    bin_of: Tensor

    def __init__(self, settings: PADSystem, popularity: np.ndarray) -> None:
        """
        Args:
            settings: of the system.
            popularity: (items + 1,) training interactions an item.
        """
        super().__init__()
        bins = settings.bins if settings.gate == "bins" else 1
        self.register_buffer("bin_of", torch.from_numpy(popularity_bins(popularity, bins)), persistent=False)
        self.coldest = max(1, int(self.bin_of.max()))
        # from what is popular, in bin 0 the padding, to what is not: IDs give way to text
        fall = torch.linspace(1, 0, bins + 1) if bins > 1 else torch.full((2,), 0.5)
        ramps: dict[Expert, Tensor] = {"id": fall, "aligned": fall - 5, "text": 1 - fall}
        start = torch.stack([ramps[name] for name in settings.experts])
        learned = settings.gate != "uniform" and len(settings.experts) > 1
        self.logits = nn.Parameter(start) if learned else None
        self.towers, self.bins = len(settings.experts), bins

    def shares(self) -> Tensor:
        """(towers, bins + 1) weights of the towers' scores; they sum to one."""
        if self.logits is None:
            return torch.full((self.towers, self.bins + 1), 1 / self.towers, device=self.bin_of.device)
        return F.logsigmoid(self.logits).softmax(0)

    def forward(self) -> Tensor:
        """(towers, items + 1) the weights for each item."""
        return self.shares()[:, self.bin_of]

    def add(self, count: int) -> None:
        """Put items behind the others that nobody met yet: they are the coldest."""
        self.bin_of = torch.cat([self.bin_of, self.bin_of.new_full((count,), self.coldest)])


def text_items(settings: PADSystem, table: Table, lost: Lost | None, dim: int) -> TableItemEncoder:
    """A projector over the table, with one learned vector for items that it lacks."""
    deep = settings.projector == "deep_gelu"
    adapter = [dim] * 4 if deep else settings.adapter
    given = TableItems(
        table=settings.table, adapter=adapter, dropout=settings.dropout, standardize=settings.standardize
    )
    encoder = TableItemEncoder(given, table[0].clone(), table[1], dim, lost=lost)
    if deep:
        encoder.adapter.append(nn.GELU())
        for layer in encoder.adapter:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
    return encoder
