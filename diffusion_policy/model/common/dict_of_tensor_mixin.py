"""A module whose state is a nested dict of tensors with keys known only from data."""

from typing import Any

import torch
from torch import Tensor, nn


class DictOfTensorMixin(nn.Module):
    """Keeps tensors under `params_dict`; loading a state rebuilds whatever keys it holds.

    They come to the device of those that there were before; if there were none, they stay where the state has them.
    """

    params_dict: nn.ParameterDict

    def __init__(self, params_dict: nn.ParameterDict | None = None) -> None:
        super().__init__()
        self.params_dict = nn.ParameterDict() if params_dict is None else params_dict

    @property
    def device(self) -> torch.device:
        """Device of the first tensor."""
        return next(iter(self.parameters())).device

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        device = next((tensor.device for tensor in self.parameters()), None)
        root = nn.ParameterDict()
        start = f"{prefix}params_dict."
        for name, value in state_dict.items():
            if name.startswith(start):
                *parents, leaf = name[len(start) :].split(".")
                node = root
                for parent in parents:
                    if parent not in node:
                        node[parent] = nn.ParameterDict()
                    node = node[parent]
                node[leaf] = nn.Parameter(value.to(device, copy=True), requires_grad=False)
        root.requires_grad_(False)
        self.params_dict = root
