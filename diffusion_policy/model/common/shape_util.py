"""What shape a network's output has."""

import copy
from collections.abc import Sequence

import torch
from torch import nn


def get_module_device(m: nn.Module) -> torch.device:
    """Device of the first parameter; the CPU for a module without any."""
    return next((parameter.device for parameter in m.parameters()), torch.device("cpu"))


@torch.no_grad()
def get_output_shape(input_shape: Sequence[int], net: nn.Module) -> tuple[int, ...]:
    """Shape of the output for one input of `input_shape`, both without the batch dimension.

    The network itself is left alone: a copy of it in evaluation mode sees a zero input.
    """
    zeros = torch.zeros(1, *input_shape, device=get_module_device(net))
    return tuple(copy.deepcopy(net).eval()(zeros).shape[1:])
