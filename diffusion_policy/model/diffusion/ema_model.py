"""Exponential moving average of a model's weights."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class EMAModel:
    """Keeps `averaged_model` as a moving average of a model under training.

    The decay warms up: `1 - (1 + step / inv_gamma) ** -power`, clipped to [min_value, max_value]. Parameters
    of batch norms and parameters that are not trained are copied; buffers are left alone.

    Args:
        model: holds the average from now on; put in evaluation mode and frozen.
        update_after_step: number of first steps at which the model is only copied.
        inv_gamma: inverse multiplicative factor of the warm-up.
        power: exponent of the warm-up; 2/3 for a million steps or more, 3/4 for fewer.
        min_value: least decay.
        max_value: greatest decay.
    """

    def __init__(
        self,
        model: nn.Module,
        update_after_step: int = 0,
        inv_gamma: float = 1.0,
        power: float = 2 / 3,
        min_value: float = 0.0,
        max_value: float = 0.9999,
    ) -> None:
        self.averaged_model = model.eval().requires_grad_(False)
        self.update_after_step = update_after_step
        self.inv_gamma = inv_gamma
        self.power = power
        self.min_value = min_value
        self.max_value = max_value
        self.decay = 0.0
        self.optimization_step = 0

    def get_decay(self, optimization_step: int) -> float:
        """Weight of the old average at a step."""
        step = max(0, optimization_step - self.update_after_step - 1)
        if step <= 0:
            return 0.0
        value = 1 - (1 + step / self.inv_gamma) ** -self.power
        return max(self.min_value, min(value, self.max_value))

    @torch.no_grad()
    def step(self, new_model: nn.Module) -> None:
        """Moves the average towards `new_model`, whose parameters are those of `averaged_model`."""
        self.decay = self.get_decay(self.optimization_step)
        pairs = list(zip(self.averaged_model.parameters(), _own_parameters(new_model), strict=True))
        copied = [(ema_param, param) for ema_param, (param, is_copied) in pairs if is_copied]
        averaged = [(ema_param, param) for ema_param, (param, is_copied) in pairs if not is_copied]
        if copied:
            torch._foreach_copy_([ema for ema, _ in copied], [new for _, new in copied])
        if averaged:
            torch._foreach_lerp_([ema for ema, _ in averaged], [new for _, new in averaged], 1 - self.decay)
        self.optimization_step += 1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the averaged weights."""
        return {"optimization_step": self.optimization_step, "decay": self.decay}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.optimization_step = state_dict["optimization_step"]
        self.decay = state_dict["decay"]


def _own_parameters(model: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Parameters in the order of `model.parameters()`, with whether they are copied instead of averaged."""
    seen: set[int] = set()
    for module in model.modules():
        for param in module.parameters(recurse=False):
            if id(param) not in seen:
                seen.add(id(param))
                yield param, isinstance(module, _BatchNorm) or not param.requires_grad
