"""Transformer-based Diffusion Policy on low-dimensional observations (Chi et al. 2023, section IV.A)."""

from typing import Any

import torch
from torch import Tensor

from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.base_lowdim_diffusion_policy import BaseLowdimDiffusionPolicy


class DiffusionTransformerLowdimPolicy(BaseLowdimDiffusionPolicy):
    """Denoises actions given observations as tokens, or by inpainting.

    Args:
        model: transformer over `Da` channels, or over `Da + Do` for inpainting.
        noise_scheduler: any variance-preserving diffusers scheduler.
        horizon: predicted steps T.
        obs_dim: length Do of an observation.
        action_dim: length Da of an action.
        n_action_steps: executed steps Ta, from the last observed one on.
        n_obs_steps: observed steps To.
        num_inference_steps: denoising steps; as many as in training if None.
        obs_as_cond: the To observations are tokens that the decoder attends to, else they are inpainted.
        pred_action_steps_only: denoise the executed steps alone; needs `obs_as_cond`.
        kwargs: handed to the scheduler's step, e.g. `eta` for DDIM.
    """

    model: TransformerForDiffusion

    def __init__(
        self,
        model: TransformerForDiffusion,
        noise_scheduler: Any,
        horizon: int,
        obs_dim: int,
        action_dim: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        obs_as_cond: bool = False,
        pred_action_steps_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            obs_dim=obs_dim,
            action_dim=action_dim,
            inpaints=not obs_as_cond,
            pred_action_steps_only=pred_action_steps_only,
            model=model,
            noise_scheduler=noise_scheduler,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            num_inference_steps=num_inference_steps,
            step_kwargs=kwargs,
        )
        self.obs_as_cond = obs_as_cond

    def _model_kwargs(self, obs: Tensor) -> dict[str, Tensor]:
        return {"cond": obs}

    def get_optimizer(
        self, weight_decay: float, learning_rate: float, betas: tuple[float, float]
    ) -> torch.optim.Optimizer:
        """AdamW in which only the matrices of linear and attention layers decay."""
        return self.model.configure_optimizers(
            weight_decay=weight_decay, learning_rate=learning_rate, betas=(betas[0], betas[1])
        )
