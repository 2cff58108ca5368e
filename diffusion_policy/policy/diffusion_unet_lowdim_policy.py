"""CNN-based Diffusion Policy on low-dimensional observations (Chi et al. 2023, section IV.A)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.model.diffusion.mask_generator import LowdimMaskGenerator
from diffusion_policy.policy.base_diffusion_policy import BaseDiffusionPolicy, Condition
from diffusion_policy.policy.base_lowdim_policy import BaseLowdimPolicy
from diffusion_policy.policy.base_policy import Generators


class DiffusionUnetLowdimPolicy(BaseDiffusionPolicy, BaseLowdimPolicy):
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
            model=model,
            noise_scheduler=noise_scheduler,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            num_inference_steps=num_inference_steps,
            action_start=n_obs_steps - 1 if oa_step_convention else n_obs_steps,
            step_kwargs=kwargs,
        )
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.obs_as_local_cond = obs_as_local_cond
        self.obs_as_global_cond = obs_as_global_cond
        self.pred_action_steps_only = pred_action_steps_only
        self.inpaints = not (obs_as_local_cond or obs_as_global_cond)
        self.mask_generator = LowdimMaskGenerator(
            action_dim=action_dim, obs_dim=obs_dim if self.inpaints else 0, max_n_obs_steps=n_obs_steps
        )

    def predict_action(self, obs_dict: Mapping[str, Any], generator: Generators = None) -> dict[str, Tensor]:
        """Predicts actions from `obs` `(B, >= To, Do)`, of which the first To steps are used.

        Returns:
            `action` `(B, Ta, Da)` to execute and `action_pred` `(B, T, Da)`; with inpainting also
            `action_obs_pred` `(B, Ta, Do)` and `obs_pred` `(B, T, Do)`.
        """
        obs = self.normalizer["obs"].normalize(self._check_obs(obs_dict))
        batch = obs.shape[0]
        length = self.n_action_steps if self.pred_action_steps_only else self.horizon
        channels = self.action_dim + self.obs_dim if self.inpaints else self.action_dim
        condition = self._inpainting(obs) if self.inpaints else Condition(self._model_kwargs(obs))
        sample = self.conditional_sample((batch, length, channels), condition, generator)
        action_pred = self.normalizer["action"].unnormalize(sample[..., : self.action_dim])
        if self.pred_action_steps_only:
            return {"action": action_pred, "action_pred": action_pred}
        result = {"action": self._executed(action_pred), "action_pred": action_pred}
        if self.inpaints:
            obs_pred = self.normalizer["obs"].unnormalize(sample[..., self.action_dim :])
            result |= {"action_obs_pred": self._executed(obs_pred), "obs_pred": obs_pred}
        return result

    def _training_inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Condition]:
        fields = self.normalizer.normalize({key: batch[key] for key in ("obs", "action")})
        obs, action = fields["obs"], fields["action"]
        if self.inpaints:
            trajectory = torch.cat((action, obs), dim=-1)
            return trajectory, Condition(data=trajectory, mask=self.mask_generator(trajectory.shape))
        trajectory = self._executed(action) if self.pred_action_steps_only else action
        return trajectory, Condition(self._model_kwargs(obs))

    def _model_kwargs(self, obs: Tensor) -> dict[str, Tensor]:
        """Normalised observations `(B, >= To, Do)` as the U-Net's condition."""
        if self.obs_as_global_cond:
            return {"global_cond": obs[:, : self.n_obs_steps].flatten(1)}
        local_cond = obs.new_zeros(obs.shape[0], self.horizon, self.obs_dim)
        local_cond[:, : self.n_obs_steps] = obs[:, : self.n_obs_steps]
        return {"local_cond": local_cond}

    def _inpainting(self, obs: Tensor) -> Condition:
        """The observed steps as known entries of the trajectory `[action | obs]`."""
        data = obs.new_zeros(obs.shape[0], self.horizon, self.action_dim + self.obs_dim)
        data[:, : self.n_obs_steps, self.action_dim :] = obs[:, : self.n_obs_steps]
        return Condition(data=data, mask=self.mask_generator(data.shape))

    def _check_obs(self, obs_dict: Mapping[str, Any]) -> Tensor:
        if "past_action" in obs_dict:
            raise ValueError("DiffusionUnetLowdimPolicy takes no past_action: set past_action_visible=False")
        if "obs" not in obs_dict:
            raise KeyError(f"the observation lacks the key 'obs'; it has {sorted(obs_dict)}")
        obs = obs_dict["obs"]
        if obs.ndim != 3 or obs.shape[1] < self.n_obs_steps or obs.shape[2] != self.obs_dim:
            raise ValueError(
                f"obs has the shape {tuple(obs.shape)}, expected (batch, at least {self.n_obs_steps} steps, "
                f"{self.obs_dim})"
            )
        return obs
