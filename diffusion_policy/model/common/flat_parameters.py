"""Parameters in one piece of memory: what is done to all of them is then one operation."""

from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 256
"""Bytes; where every parameter begins, as in an allocation of its own: kernels choose by alignment."""


class FlatParameters:
    """Moves the values of parameters into one buffer, of which each parameter is a view from now on.

    Gradients, names and the parameters themselves stay what they are; parameters of equal shapes and strides are
    laid out alike.

    Args:
        parameters: of one dtype, on one device, each listed once.
        strides_of: tensors of the same shapes, whose strides (their memory format) the views take.

    Attributes:
        values: the buffer, one-dimensional; what lies between the parameters means nothing.
    """

    def __init__(self, parameters: Sequence[Tensor], strides_of: Sequence[Tensor]) -> None:
        first = parameters[0]
        step = ALIGNMENT // first.element_size()
        offsets, end = [], 0
        for parameter in parameters:
            offsets.append(end)
            end += -(-parameter.numel() // step) * step
        self.values = torch.zeros(end, dtype=first.dtype, device=first.device)
        for parameter, like, offset in zip(parameters, strides_of, offsets, strict=True):
            # What is laid out with gaps or overlaps is laid out without: those strides `empty_like` gives.
            strides = torch.empty_like(like, device="meta").stride()
            view = self.values.as_strided(parameter.shape, strides, offset)
            parameter.data = view.copy_(parameter.detach())
        self._addresses = [parameter.data_ptr() for parameter in parameters]

    def holds(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these are the parameters, in this order, and none has been moved elsewhere since."""
        return [parameter.data_ptr() for parameter in parameters] == self._addresses
