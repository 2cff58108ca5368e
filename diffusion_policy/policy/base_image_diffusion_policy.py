"""What diffusion policies on cameras and sensors share, whatever their encoder and denoiser."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.policy.base_diffusion_policy import BaseDiffusionPolicy, Observed
from diffusion_policy.policy.base_image_policy import BaseImagePolicy


class BaseImageDiffusionPolicy(BaseDiffusionPolicy, BaseImagePolicy):
    """Denoises actions given features of each observed step, or actions and features by inpainting.

    Args:
        shape_meta: cameras, sensors and action.
        kwargs: as for `BaseDiffusionPolicy`; its `encoders` have an `obs_encoder`, `{key: (N, ...)}` to `(N, Df)`,
            unless `_observe` is overridden.
    """

    def __init__(self, shape_meta: ShapeMeta, **kwargs: Any) -> None:
        super().__init__(action_dim=shape_meta.action_dim, **kwargs)
        self.obs_shapes = shape_meta.obs

    def _model_kwargs(self, features: Tensor) -> dict[str, Tensor]:
        """Features `(B, To, Df)` as the model's condition."""
        raise NotImplementedError(f"{type(self).__name__} does not say how features condition its model")

    def _observe(self, obs_dict: Mapping[str, Any], n_steps: int) -> Observed:
        obs = self._normalized(obs_dict, self.obs_shapes, n_steps)
        batch_size = len(next(iter(obs.values())))
        encoder = cast(nn.Module, self.obs_encoder)
        features = encoder({key: value.flatten(0, 1) for key, value in obs.items()})
        features = features.unflatten(0, (batch_size, n_steps))
        if self.given_dim:
            return Observed(batch_size, given=features)
        return Observed(batch_size, model_kwargs=self._model_kwargs(features))

    def _example_obs(self, batch_size: int) -> dict[str, Tensor]:
        shapes = {key: (batch_size, self.n_obs_steps, *shape) for key, shape in self.obs_shapes.items()}
        return {key: torch.zeros(shape, device=self.device) for key, shape in shapes.items()}
