"""What diffusion policies on low-dimensional observations share, whatever their denoiser."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.policy.base_diffusion_policy import BaseDiffusionPolicy, Observed
from diffusion_policy.policy.base_lowdim_policy import BaseLowdimPolicy


class BaseLowdimDiffusionPolicy(BaseDiffusionPolicy, BaseLowdimPolicy):
    """Denoises actions given observations as a condition of the model, or actions and observations by inpainting.

    With inpainting `predict_action` also returns `action_obs_pred` `(B, Ta, Do)` and `obs_pred` `(B, T, Do)`.

    Args:
        obs_dim: length Do of an observation.
        inpaints: the trajectory is `[action | obs]`, and the observed steps of it are given.
        kwargs: as for `BaseDiffusionPolicy`.
    """

    def __init__(self, obs_dim: int, inpaints: bool, **kwargs: Any) -> None:
        super().__init__(given_dim=obs_dim if inpaints else 0, **kwargs)
        self.obs_dim = obs_dim

    @abstractmethod
    def _model_kwargs(self, obs: Tensor) -> dict[str, Tensor]:
        """Normalised observations `(B, To, Do)` as the model's condition."""

    def _observe(self, obs_dict: Mapping[str, Any], n_steps: int) -> Observed:
        obs = self._normalized(obs_dict, n_steps)
        if self.given_dim:
            return Observed(len(obs), given=obs)
        return Observed(len(obs), model_kwargs=self._model_kwargs(obs))

    def _example_obs(self, batch_size: int) -> dict[str, Tensor]:
        return {"obs": torch.zeros(batch_size, self.n_obs_steps, self.obs_dim, device=self.device)}

    def _result(self, sample: Tensor) -> dict[str, Tensor]:
        result = super()._result(sample)
        if self.given_dim:
            obs_pred = self.normalizer["obs"].unnormalize(sample[..., self.action_dim :])
            result |= {"action_obs_pred": self._executed(obs_pred), "obs_pred": obs_pred}
        return result
