"""Modules that know their device and dtype."""

import torch
from torch import nn


class ModuleAttrMixin(nn.Module):
    """Has `device` and `dtype`, also when it has no other parameter than the empty `_dummy_variable`."""

    def __init__(self) -> None:
        super().__init__()
        self._dummy_variable = nn.Parameter()

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(iter(self.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the first parameter."""
        return next(iter(self.parameters())).dtype
