"""What diffusion policies on low-dimensional observations share, whatever their denoiser."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.model.diffusion.mask_generator import LowdimMaskGenerator
from diffusion_policy.policy.base_diffusion_policy import BaseDiffusionPolicy, Condition
from diffusion_policy.policy.base_lowdim_policy import BaseLowdimPolicy
from diffusion_policy.policy.base_policy import Generators


class BaseLowdimDiffusionPolicy(BaseDiffusionPolicy, BaseLowdimPolicy):
    """Denoises actions given observations as a condition of the model, or actions and observations by inpainting.

    Args:
        obs_dim: length Do of an observation.
        action_dim: length Da of an action.
        inpaints: the trajectory is `[action | obs]`, and the observed steps of it are given.
        pred_action_steps_only: denoise the executed steps alone; excludes inpainting.
        kwargs: as for `BaseDiffusionPolicy`.
    """

    def __init__(
        self, obs_dim: int, action_dim: int, inpaints: bool, pred_action_steps_only: bool, **kwargs: Any
    ) -> None:
        if pred_action_steps_only and inpaints:
            raise ValueError("pred_action_steps_only excludes inpainting: let observations condition the model")
        super().__init__(**kwargs)
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.inpaints = inpaints
        self.pred_action_steps_only = pred_action_steps_only
        self.mask_generator = LowdimMaskGenerator(
            action_dim=action_dim, obs_dim=obs_dim if inpaints else 0, max_n_obs_steps=self.n_obs_steps
        )

    @abstractmethod
    def _model_kwargs(self, obs: Tensor) -> dict[str, Tensor]:
        """Normalised observations `(B, >= To, Do)` as the model's condition."""

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

    def _inpainting(self, obs: Tensor) -> Condition:
        """The observed steps as known entries of the trajectory `[action | obs]`."""
        data = obs.new_zeros(obs.shape[0], self.horizon, self.action_dim + self.obs_dim)
        data[:, : self.n_obs_steps, self.action_dim :] = obs[:, : self.n_obs_steps]
        return Condition(data=data, mask=self.mask_generator(data.shape))

    def _check_obs(self, obs_dict: Mapping[str, Any]) -> Tensor:
        if "past_action" in obs_dict:
            raise ValueError(f"{type(self).__name__} takes no past_action: set past_action_visible=False")
        if "obs" not in obs_dict:
            raise KeyError(f"the observation lacks the key 'obs'; it has {sorted(obs_dict)}")
        obs = obs_dict["obs"]
        if obs.ndim != 3 or obs.shape[1] < self.n_obs_steps or obs.shape[2] != self.obs_dim:
            raise ValueError(
                f"obs has the shape {tuple(obs.shape)}, expected (batch, at least {self.n_obs_steps} steps, "
                f"{self.obs_dim})"
            )
        return obs
