"""CNN-based Diffusion Policy on low-dimensional observations (Chi et al. 2023, section IV.A)."""

from typing import Any

from torch import Tensor

from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.policy.base_lowdim_diffusion_policy import BaseLowdimDiffusionPolicy


class DiffusionUnetLowdimPolicy(BaseLowdimDiffusionPolicy):
    """Denoises actions given observations as a global condition, as a local one, or by inpainting.

    Args:
        model: U-Net over `Da` channels, or over `Da + Do` for inpainting.
        noise_scheduler: any variance-preserving diffusers scheduler.
        horizon: predicted steps T.
        obs_dim: length Do of an observation.
        action_dim: length Da of an action.
        n_action_steps: executed steps Ta.
        n_obs_steps: observed steps To.
        num_inference_steps: denoising steps; as many as in training if None.
        obs_as_local_cond: each step of the U-Net sees the observation of that step (zero in the future).
        obs_as_global_cond: all steps see the To observations as one vector.
        pred_action_steps_only: denoise the executed steps alone; needs `obs_as_global_cond`.
        oa_step_convention: the first executed step is the last observed one, else the one after it.
        kwargs: handed to the scheduler's step, e.g. `eta` for DDIM.
    """

    def __init__(
        self,
        model: ConditionalUnet1D,
        noise_scheduler: Any,
        horizon: int,
        obs_dim: int,
        action_dim: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        obs_as_local_cond: bool = False,
        obs_as_global_cond: bool = False,
        pred_action_steps_only: bool = False,
        oa_step_convention: bool = False,
        **kwargs: Any,
    ) -> None:
        if obs_as_local_cond and obs_as_global_cond:
            raise ValueError("obs_as_local_cond and obs_as_global_cond exclude each other: set one to false")
        if pred_action_steps_only and not obs_as_global_cond:
            raise ValueError("pred_action_steps_only needs obs_as_global_cond=True")
        super().__init__(
            obs_dim=obs_dim,
            action_dim=action_dim,
            inpaints=not (obs_as_local_cond or obs_as_global_cond),
            pred_action_steps_only=pred_action_steps_only,
            model=model,
            noise_scheduler=noise_scheduler,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            num_inference_steps=num_inference_steps,
            action_start=None if oa_step_convention else n_obs_steps,
            step_kwargs=kwargs,
        )
        self.obs_as_local_cond = obs_as_local_cond
        self.obs_as_global_cond = obs_as_global_cond

    def _model_kwargs(self, obs: Tensor) -> dict[str, Tensor]:
        if self.obs_as_global_cond:
            return {"global_cond": obs.flatten(1)}
        local_cond = obs.new_zeros(obs.shape[0], self.horizon, self.obs_dim)
        local_cond[:, : self.n_obs_steps] = obs
        return {"local_cond": local_cond}
