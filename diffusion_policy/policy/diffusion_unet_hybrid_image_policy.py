"""CNN-based Diffusion Policy with robomimic's visual encoder, as evaluated in Chi et al. 2023, table II."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.vision.robomimic_obs_encoder import make_robomimic_obs_encoder
from diffusion_policy.policy.diffusion_unet_image_policy import DiffusionUnetImagePolicy


class DiffusionUnetHybridImagePolicy(DiffusionUnetImagePolicy):
    """A DiffusionUnetImagePolicy whose encoder is robomimic's.

    Args:
        crop_shape: height and width of the crops of each camera; None for whole images.
        obs_encoder_group_norm: group norm in place of batch norm, which the moving average needs.
        eval_fixed_crop: evaluate on the middle of the images. Else on random crops too, drawn from the global
            generator: actions then differ from call to call.
        For the others see DiffusionUnetImagePolicy.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        noise_scheduler: Any,
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        obs_as_global_cond: bool = True,
        crop_shape: Sequence[int] | None = (76, 76),
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        cond_predict_scale: bool = True,
        obs_encoder_group_norm: bool = False,
        eval_fixed_crop: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            shape_meta=shape_meta,
            noise_scheduler=noise_scheduler,
            obs_encoder=make_robomimic_obs_encoder(
                ShapeMeta.parse(shape_meta), crop_shape, obs_encoder_group_norm, eval_fixed_crop
            ),
            horizon=horizon,
            n_action_steps=n_action_steps,
            n_obs_steps=n_obs_steps,
            num_inference_steps=num_inference_steps,
            obs_as_global_cond=obs_as_global_cond,
            diffusion_step_embed_dim=diffusion_step_embed_dim,
            down_dims=down_dims,
            kernel_size=kernel_size,
            n_groups=n_groups,
            cond_predict_scale=cond_predict_scale,
            **kwargs,
        )
