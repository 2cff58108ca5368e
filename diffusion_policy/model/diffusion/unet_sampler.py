"""A U-Net made ready for sampling: weights laid out for the device, steps embedded beforehand."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.common.device import has_triton
from diffusion_policy.model.common.weight_watch import WeightWatch
from diffusion_policy.model.diffusion.unet_ops import TorchOps, UnetOps, Weights, cast_weights

LayOut = Callable[[nn.Module, torch.dtype], Weights]


class UnetSampler:
    """Denoises with a U-Net at diffusion steps that are known beforehand.

    What each residual block's FiLM makes of a step is a table; what it makes of the global condition is computed once
    for a call. Weights are copied, in the dtype and layout that the device wants, once for all samplers that want the
    same; `refresh` follows their changes.

    Args:
        unet: a `ConditionalUnet1D`.
        timesteps: diffusion steps, in the order they are used.
        batch_size: sequences denoised at a time.
        horizon: steps T of a sequence.
        dtype: to compute in, float32 or bfloat16.
    """

    @torch.no_grad()
    def __init__(self, unet: Any, timesteps: Sequence[int], batch_size: int, horizon: int, dtype: torch.dtype) -> None:
        self._unet = unet
        self._timesteps = torch.tensor(timesteps, device=next(unet.parameters()).device)
        self._layout, make_ops = _layout(unet, batch_size, horizon, dtype, self._timesteps.device)
        self._ops = make_ops(self._layout.weights)
        self._seen = self._layout.n_changes
        self._table, self._film_weight = self._films()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the weights again if they were changed."""
        self._layout.refresh()
        if self._seen != self._layout.n_changes:
            self._seen = self._layout.n_changes
            for old, new in zip((self._table, self._film_weight), self._films(), strict=True):
                old.copy_(new)

    def __call__(
        self, global_cond: Tensor | None = None, local_cond: Tensor | None = None
    ) -> Callable[[Tensor, int], Tensor]:
        """What denoises a trajectory `(B, T, D)` at the step of an index, given conditions as the U-Net takes them."""
        of_condition = None if global_cond is None else F.linear(F.mish(global_cond), self._film_weight)

        def denoise(trajectory: Tensor, index: int) -> Tensor:
            film = self._table[index]
            film = film.expand(len(trajectory), -1) if of_condition is None else of_condition + film
            return self._unet.denoise(self._ops, trajectory, film, local_cond)

        return denoise

    def _films(self) -> tuple[Tensor, Tensor]:
        """The FiLM of each step `(S, N)`, and the weight `(N, G)` that adds that of the global condition."""
        weight, bias = self._unet.film_weights()
        embedding = F.mish(self._unet.diffusion_step_encoder(self._timesteps))
        of_step, of_condition = weight.split([embedding.shape[1], weight.shape[1] - embedding.shape[1]], dim=1)
        return F.linear(embedding, of_step, bias), of_condition.contiguous()


class WeightLayout:
    """The weights of a U-Net's convolutions in one dtype and layout.

    Args:
        unet: whose weights they are.
        lay_out: makes them.
        dtype: theirs.

    Attributes:
        weights: always this dict; on a GPU always these tensors, as captured graphs read them.
        n_changes: how often `refresh` found the U-Net's weights changed.
    """

    def __init__(self, unet: nn.Module, lay_out: LayOut, dtype: torch.dtype) -> None:
        self._watch = WeightWatch(unet)
        self._lay_out = partial(lay_out, unet, dtype)
        self._seen = self._state()
        self.weights = self._lay_out()
        self.n_changes = 0

    def refresh(self) -> None:
        """Copies the weights again if they were changed."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        self.n_changes += 1
        weights = self._lay_out()
        for parameter, new in weights.items():
            old = self.weights.get(parameter)
            if old is not None and old.device == new.device and new.is_cuda and new is not parameter:
                weights[parameter] = old.copy_(new)
        self.weights.clear()  # of parameters that were replaced
        self.weights.update(weights)

    def _state(self) -> tuple[list[int], list[int]]:
        return self._watch.places(), self._watch.versions()


def _layout(
    unet: Any, batch_size: int, horizon: int, dtype: torch.dtype, device: torch.device
) -> tuple[WeightLayout, Callable[[Weights], UnetOps]]:
    """The weights laid out for the fastest operations there are here, and what makes these of them."""
    lay_out: LayOut = cast_weights
    make_ops: Callable[[Weights], UnetOps] = TorchOps
    if device.type == "cuda" and has_triton():
        from diffusion_policy.model.diffusion import unet_small_batch_ops as small
        from diffusion_policy.model.diffusion.unet_cuda_ops import CudaOps

        if small.takes(unet, batch_size, horizon):
            lay_out, make_ops = small.tap_by_tap_weights, small.SmallBatchOps
        else:
            make_ops = partial(CudaOps, dtype)
    elif device.type == "cpu":
        from diffusion_policy.model.diffusion import unet_packed_ops as packed

        if packed.packing_pays(unet) and packed.packing_is_possible(dtype):
            lay_out, make_ops = packed.packed_weights, packed.PackedOps
    layouts = unet.weight_layouts
    key = (lay_out, dtype, device)
    if key not in layouts:
        layouts[key] = WeightLayout(unet, lay_out, dtype)
    layouts[key].refresh()
    return layouts[key], make_ops
