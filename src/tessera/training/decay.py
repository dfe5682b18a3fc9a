"""Which parameters weight decay shrinks: one rule for every training."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.conv import _ConvNd

_LAYERS = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, _ConvNd)


def decayed(model: nn.Module) -> set[int]:
    """`id` of each parameter of a model that decays.

    These are the matrices of linear, recurrent and convolution layers; never embeddings, norms, biases, or vectors that
    a module has of its own. A token embedding that is the output layer too is a matrix of a linear layer. A module
    written by hand that is such a layer in other words says so with an attribute `decays` that is true.
    """
    return {
        id(parameter)
        for module in model.modules()
        if _is_layer(module)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    }


def _is_layer(module: nn.Module) -> bool:
    # transformers' Conv1D is a linear layer with its matrix transposed; GPT-2 is made of them
    return isinstance(module, _LAYERS) or type(module).__name__ == "Conv1D" or getattr(module, "decays", False) is True


def groups(parameters: Iterable[nn.Parameter], shrunk: set[int], weight_decay: float) -> list[dict[str, object]]:
    """Parameters as groups of an optimiser: those that decay, then the others."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if id(p) in shrunk], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in shrunk], "weight_decay": 0.0},
    ]
