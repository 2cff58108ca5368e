"""Small functions on nested dicts of tensors, modules and optimizers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def dict_apply(x: Mapping[str, Any], func: Callable[[Any], Any]) -> dict[str, Any]:
    """Applies `func` to every leaf of a nested dict."""
    return {key: dict_apply(value, func) if isinstance(value, Mapping) else func(value) for key, value in x.items()}


def pad_remaining_dims(x: Tensor, target: Tensor) -> Tensor:
    """Appends dimensions of size 1 to `x` until it has as many as `target`, whose leading shape it shares."""
    if x.shape != target.shape[: x.ndim]:
        raise ValueError(f"shape {tuple(x.shape)} is not the beginning of {tuple(target.shape)}")
    return x.reshape(x.shape + (1,) * (target.ndim - x.ndim))


def dict_apply_split(
    x: Mapping[str, Tensor], split_func: Callable[[Tensor], Mapping[str, Tensor]]
) -> dict[str, dict[str, Tensor]]:
    """Splits each tensor into named parts; the result is keyed by part, then by the keys of `x`."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in x.items():
        for name, part in split_func(value).items():
            parts.setdefault(name, {})[key] = part
    return parts


def dict_apply_reduce(
    x: list[Mapping[str, Tensor]], reduce_func: Callable[[list[Tensor]], Tensor]
) -> dict[str, Tensor]:
    """Reduces dicts of the same keys into one, e.g. with `torch.cat`."""
    return {key: reduce_func([each[key] for each in x]) for key in x[0]}


def replace_submodules(
    root_module: nn.Module, predicate: Callable[[nn.Module], bool], func: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Replaces, in place, every submodule that satisfies `predicate` by `func(submodule)`.

    A module used in several places is replaced by one and the same module in all of them.
    """
    if predicate(root_module):
        return func(root_module)
    replaced: dict[nn.Module, nn.Module] = {}
    for parent in list(root_module.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and predicate(child):
                if child not in replaced:
                    replaced[child] = func(child)
                parent._modules[name] = replaced[child]
    return root_module


def optimizer_to(optimizer: torch.optim.Optimizer, device: torch.device | str) -> torch.optim.Optimizer:
    """Moves the state of an optimizer to `device` in place, beside its parameters."""
    for state in optimizer.state.values():
        for key, value in state.items():
            if isinstance(value, Tensor):
                state[key] = value.to(device=device)
    return optimizer
