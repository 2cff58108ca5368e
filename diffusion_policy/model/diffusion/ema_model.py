"""Exponential moving average of a model's weights."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffusion_policy.common.device import has_triton
from diffusion_policy.model.common.flat_parameters import FlatParameters


class EMAModel:
    """Keeps `averaged_model` as a moving average of a model under training.

    The decay warms up: `1 - (1 + step / inv_gamma) ** -power`, clipped to [min_value, max_value]. Parameters
    of batch norms and parameters that are not trained are copied; buffers are left alone.

    The parameters of both models are moved into flat buffers, so that a step is one operation on each.

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
        self._pairs: dict[Any, _Pair] = {}

    def get_decay(self, optimization_step: int) -> float:
        """Weight of the old average at a step."""
        step = max(0, optimization_step - self.update_after_step - 1)
        if step <= 0:
            return 0.0
        value = 1 - (1 + step / self.inv_gamma) ** -self.power
        return max(self.min_value, min(value, self.max_value))

    def step(self, new_model: nn.Module) -> None:
        """Moves the average towards `new_model`, whose parameters are those of `averaged_model`."""
        self.advance()
        self.update(new_model)

    def advance(self) -> None:
        """Counts a step and sets its decay: the part of a step that a CUDA graph cannot hold."""
        self.decay = self.get_decay(self.optimization_step)
        self.optimization_step += 1
        for pair in self._pairs.values():
            pair.weight.fill_(1 - self.decay)

    @torch.no_grad()
    def update(self, new_model: nn.Module) -> None:
        """Moves the average by the decay that `advance` has set; nothing in it waits for the device."""
        groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        averaged = list(self.averaged_model.parameters())
        for old, (new, is_copied) in zip(averaged, _own_parameters(new_model), strict=True):
            olds, news = groups[new.dtype, new.device, is_copied]
            olds.append(old)
            news.append(new)
        # Anew each step: an encoder may be frozen after construction, a model moved to another device.
        if self._pairs.keys() != groups.keys() or not all(self._pairs[key].holds(*groups[key]) for key in groups):
            self._pairs = {key: _Pair(*groups[key], 1 - self.decay) for key in groups}
        for (*_, is_copied), pair in self._pairs.items():
            if is_copied:
                pair.old.values.copy_(pair.new.values)
            elif pair.old.values.is_cuda and has_triton():
                from diffusion_policy.model.diffusion.ema_kernel import lerp_on_gpu

                lerp_on_gpu(pair.old.values, pair.new.values, pair.weight)
            else:
                pair.old.values.lerp_(pair.new.values, pair.weight)
        # Autograd does not see that what is done to the buffer is done to its views.
        torch.autograd.graph.increment_version(averaged)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the averaged weights."""
        return {"optimization_step": self.optimization_step, "decay": self.decay}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.optimization_step = state_dict["optimization_step"]
        self.decay = state_dict["decay"]


class _Pair:
    """Parameters of both models, laid out alike, and the weight of the new ones, where these are."""

    def __init__(self, old: list[Tensor], new: list[Tensor], weight: float) -> None:
        self.old = FlatParameters(old, strides_of=new)
        self.new = FlatParameters(new, strides_of=new)
        self.weight = torch.full((), weight, dtype=new[0].dtype, device=new[0].device)

    def holds(self, old: list[Tensor], new: list[Tensor]) -> bool:
        return self.old.holds(old) and self.new.holds(new)


def _own_parameters(model: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Parameters in the order of `model.parameters()`, with whether they are copied instead of averaged."""
    seen: set[int] = set()
    for module in model.modules():
        for param in module.parameters(recurse=False):
            if id(param) not in seen:
                seen.add(id(param))
                yield param, isinstance(module, _BatchNorm) or not param.requires_grad
