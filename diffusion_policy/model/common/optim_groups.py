"""Parameters in groups for an optimizer."""

from typing import Any

from torch import nn


def get_decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups, each in the order of the parameters' names.

    Matrices of linear and attention layers decay, all else (embeddings of positions, biases, norms) does not.
    """
    layers = (nn.Linear, nn.MultiheadAttention)
    decaying = {
        f"{module_name}.{name}"
        for module_name, each in module.named_modules()
        if isinstance(each, layers)
        for name, _ in each.named_parameters(recurse=False)
        if name.endswith("weight")
    }
    parameters = dict(sorted(module.named_parameters()))
    return [
        {"params": [p for name, p in parameters.items() if name in decaying], "weight_decay": weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decaying], "weight_decay": 0.0},
    ]
