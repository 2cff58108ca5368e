"""What a policy samples with: its denoiser, made ready for the diffusion steps that it goes through."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.transient_dict import TransientDict

Denoise = Callable[[Tensor, int], Tensor]
"""What denoises a trajectory `(B, T, D)` at the diffusion step of an index."""


class Samplers:
    """Samplers of models, each made once; copies of the owner start without any."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = TransientDict()

    def __call__(
        self,
        model: nn.Module,
        timesteps: Sequence[int],
        batch_size: int,
        horizon: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Callable[..., Denoise]:
        """A sampler that knows the model's weights of now: called with the model's conditions, it gives `Denoise`.

        In training, and in a precision that the caller has set, that is the model as it stands; so it is if it has no
        `sampler` or something changes its `forward`.
        """
        is_fast = is_as_made(model) and not (model.training or torch.is_autocast_enabled(device.type))
        key = (id(model), tuple(timesteps), batch_size, horizon, dtype, device, is_fast)
        if key not in self._made:
            if is_fast:
                self._made[key] = cast(Any, model).sampler(timesteps, batch_size, horizon, dtype)
            else:
                self._made[key] = PlainSampler(model, timesteps, device, dtype)
        sampler = self._made[key]
        if not (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            sampler.refresh()  # a graph reads what is refreshed before it is replayed
        return cast(Callable[..., Denoise], sampler)


class PlainSampler:
    """A denoiser as it stands, at diffusion steps that are known beforehand; called like `UnetSampler`."""

    def __init__(self, model: nn.Module, timesteps: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        self._model = model
        self._timesteps = torch.tensor(timesteps, device=device)
        self._dtype = dtype

    def refresh(self) -> None:
        """Nothing is derived from the weights."""

    def __call__(self, **model_kwargs: Tensor) -> Denoise:
        """What denoises, given the model's conditions."""

        def denoise(trajectory: Tensor, index: int) -> Tensor:
            is_half = self._dtype != torch.float32
            with torch.autocast(trajectory.device.type, self._dtype) if is_half else contextlib.nullcontext():
                output: Tensor = self._model(trajectory, self._timesteps[index], **model_kwargs)
            return output.to(trajectory.dtype)

        return denoise


def is_as_made(model: nn.Module) -> bool:
    """Whether a model has a `sampler`, and nothing changes its `forward`: neither subclass nor hook."""
    makers = [kind for kind in type(model).__mro__ if "sampler" in vars(kind)]
    if not makers or "forward" in vars(model) or model._forward_hooks or model._forward_pre_hooks:
        return False
    return bool(type(model).forward is cast(Any, makers[0]).forward)
