"""Which module holds which model, and what a model may offer beyond logits.

A module of `ctr/models` has a class `Model(settings, catalogue)`: a torch module whose `forward(batch)` gives logits
`(batch,)` for a `Batch`. It may have

- `max_history`: how many of the latest events it reads; None or absent reads all;
- `auxiliary(batch)`: a further loss, a mean over rows, added to the cross-entropy while training;
- `request(history, ages, candidates)`: logits `(candidates,)` for one user, equal to those of `forward` row by row;
- `selected(batch)`: `(batch, length)` bool, the events that retrieval hands on;
- `attention(batch)`: `(batch, length)` weights of events, of a model that attends to all of them;
- `program(training, per_epoch, batch_of)`: its phases of training, in place of one with one optimiser;
- `place(folder)`: told where it may keep files while it is trained;
- `finish()`: what is done once training has ended, before the model is judged and written;
- `about()`: what of the trained model is told beside its weights.

A part that depends on other rows of a step than its own is `AcrossRows` (`ctr/shares.py`): each process holds a share.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tessera.ctr.batch import Batch, Catalogue
from tessera.settings.clicks.base import CTRModel
from tessera.settings.kinds import implementation

BatchOf = Callable[[int], Batch]
"""This process's share of the batch of a step of training, from 0; epochs follow one another."""


def build(settings: CTRModel, catalogue: Catalogue) -> nn.Module:
    """An untrained model; the caller seeds torch.

    Raises:
        ValueError: the model reads codes and the catalogue has none.
    """
    model: nn.Module = implementation(settings)(settings, catalogue)
    return model
