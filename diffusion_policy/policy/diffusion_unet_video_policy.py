"""CNN-based Diffusion Policy that sees the observed images of a camera as one clip, over space and time.

The original names this method but cannot run it: the package of its encoder is missing. What its config says stands:
a 3-D ResNet for each camera, pooled over space and time, and convolutions over time for the sensors.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.common.shape_util import get_output_shape
from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.model.vision.temporal_aggregator import TemporalAggregator
from diffusion_policy.policy.base_diffusion_policy import Observed
from diffusion_policy.policy.base_image_diffusion_policy import BaseImageDiffusionPolicy


class DiffusionUnetVideoPolicy(BaseImageDiffusionPolicy):
    """Denoises actions given features of each camera's clip, and of the sensors, as a global condition.

    Args:
        shape_meta: the config's: cameras, sensors and action.
        noise_scheduler: any variance-preserving diffusers scheduler.
        rgb_net: `(B, To, C, H, W)` to `(B, D)`, e.g. a VideoCore; each camera has a copy.
        horizon: predicted steps T.
        n_action_steps: executed steps Ta, from the last observed one on.
        n_obs_steps: observed steps To.
        num_inference_steps: denoising steps; as many as in training if None.
        lowdim_as_global_cond: sensors are part of the condition, else they are inpainted.
        diffusion_step_embed_dim, down_dims, kernel_size, n_groups, cond_predict_scale: see ConditionalUnet1D.
        channel_mults, n_blocks_per_level, ta_kernel_size, ta_n_groups: see TemporalAggregator.
        kwargs: handed to the scheduler's step, e.g. `eta` for DDIM.
    """

    rgb_nets: nn.ModuleDict
    lowdim_net: TemporalAggregator

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        noise_scheduler: Any,
        rgb_net: nn.Module,
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        lowdim_as_global_cond: bool = True,
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        cond_predict_scale: bool = True,
        channel_mults: Sequence[int] = (1, 1),
        n_blocks_per_level: int = 1,
        ta_kernel_size: int = 3,
        ta_n_groups: int = 8,
        **kwargs: Any,
    ) -> None:
        meta = ShapeMeta.parse(shape_meta)
        if not meta.rgb_keys:
            raise ValueError("shape_meta.obs has no camera (type: rgb): use a policy on low-dimensional observations")
        rgb_nets = nn.ModuleDict({key: copy.deepcopy(rgb_net) for key in meta.rgb_keys})
        cond_dim = sum(get_output_shape((n_obs_steps, *meta.obs[key]), rgb_net)[0] for key in meta.rgb_keys)
        low_dim = sum(meta.obs[key][0] for key in meta.low_dim_keys)
        encoders: dict[str, nn.Module] = {"rgb_nets": rgb_nets}
        if low_dim and lowdim_as_global_cond:
            aggregator = TemporalAggregator(low_dim, channel_mults, n_blocks_per_level, ta_kernel_size, ta_n_groups)
            encoders["lowdim_net"] = aggregator
            cond_dim += aggregator.out_channels
        given_dim = 0 if lowdim_as_global_cond else low_dim
        model = ConditionalUnet1D(
            input_dim=meta.action_dim + given_dim,
            global_cond_dim=cond_dim,
            diffusion_step_embed_dim=diffusion_step_embed_dim,
            down_dims=down_dims,
            kernel_size=kernel_size,
            n_groups=n_groups,
            cond_predict_scale=cond_predict_scale,
        )
        super().__init__(
            shape_meta=meta,
            encoders=encoders,
            model=model,
            noise_scheduler=noise_scheduler,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            num_inference_steps=num_inference_steps,
            given_dim=given_dim,
            step_kwargs=kwargs,
        )
        self.rgb_keys, self.low_dim_keys = meta.rgb_keys, meta.low_dim_keys

    def _observe(self, obs_dict: Mapping[str, Any], n_steps: int) -> Observed:
        clips = self._normalized(obs_dict, self.rgb_keys, self.n_obs_steps)
        features = [self.rgb_nets[key](clip) for key, clip in clips.items()]
        given: Tensor | None = None
        if self.low_dim_keys:
            sensors = torch.cat(list(self._normalized(obs_dict, self.low_dim_keys, n_steps).values()), dim=-1)
            if self.given_dim:
                given = sensors
            else:
                features.append(self.lowdim_net(sensors))
        return Observed(len(features[0]), {"global_cond": torch.cat(features, dim=-1)}, given)
