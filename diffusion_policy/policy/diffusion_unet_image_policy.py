"""CNN-based Diffusion Policy on cameras and sensors (Chi et al. 2023, sections IV.A and IV.B)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.policy.base_image_diffusion_policy import BaseImageDiffusionPolicy


class DiffusionUnetImagePolicy(BaseImageDiffusionPolicy):
    """Denoises actions given the features of the observed steps as a global condition, or by inpainting.

    Args:
        shape_meta: the config's: cameras, sensors and action.
        noise_scheduler: any variance-preserving diffusers scheduler.
        obs_encoder: `{key: (N, ...)}` to `(N, Df)`, with `output_shape()` `[Df]`, e.g. a MultiImageObsEncoder.
        horizon: predicted steps T.
        n_action_steps: executed steps Ta, from the last observed one on.
        n_obs_steps: observed steps To.
        num_inference_steps: denoising steps; as many as in training if None.
        obs_as_global_cond: all steps see the features of the To steps as one vector, else they are inpainted.
        diffusion_step_embed_dim, down_dims, kernel_size, n_groups, cond_predict_scale: see ConditionalUnet1D.
        kwargs: handed to the scheduler's step, e.g. `eta` for DDIM.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        noise_scheduler: Any,
        obs_encoder: Any,
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        obs_as_global_cond: bool = True,
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        cond_predict_scale: bool = True,
        **kwargs: Any,
    ) -> None:
        meta = ShapeMeta.parse(shape_meta)
        (feature_dim,) = obs_encoder.output_shape()
        model = ConditionalUnet1D(
            input_dim=meta.action_dim + (0 if obs_as_global_cond else feature_dim),
            global_cond_dim=feature_dim * n_obs_steps if obs_as_global_cond else None,
            diffusion_step_embed_dim=diffusion_step_embed_dim,
            down_dims=down_dims,
            kernel_size=kernel_size,
            n_groups=n_groups,
            cond_predict_scale=cond_predict_scale,
        )
        super().__init__(
            shape_meta=meta,
            encoders={"obs_encoder": obs_encoder},
            model=model,
            noise_scheduler=noise_scheduler,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            num_inference_steps=num_inference_steps,
            given_dim=0 if obs_as_global_cond else feature_dim,
            step_kwargs=kwargs,
        )
        self.obs_as_global_cond = obs_as_global_cond
        self.obs_feature_dim = feature_dim

    def _model_kwargs(self, features: Tensor) -> dict[str, Tensor]:
        return {"global_cond": features.flatten(1)}
