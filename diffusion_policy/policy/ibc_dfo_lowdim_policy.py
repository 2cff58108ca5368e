"""Implicit behavioural cloning (Florence et al. 2021) on low-dimensional observations."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_policy.policy.base_ibc_policy import BaseIbcPolicy
from diffusion_policy.policy.base_lowdim_policy import BaseLowdimPolicy


class IbcDfoLowdimPolicy(BaseIbcPolicy, BaseLowdimPolicy):
    """Rates candidates for actions given observations.

    Args:
        obs_dim: length Do of an observation.
        andy_train: not read; the original's two ways to write the training loss are the same.
        For the others see BaseIbcPolicy.
    """

    def __init__(
        self,
        horizon: int,
        obs_dim: int,
        action_dim: int,
        n_action_steps: int,
        n_obs_steps: int,
        dropout: float = 0.1,
        train_n_neg: int = 128,
        pred_n_iter: int = 5,
        pred_n_samples: int = 16384,
        kevin_inference: bool = False,
        andy_train: bool = False,
    ) -> None:
        super().__init__(
            obs_feature_dim=n_obs_steps * obs_dim,
            action_dim=action_dim,
            horizon=horizon,
            n_action_steps=n_action_steps,
            n_obs_steps=n_obs_steps,
            dropout=dropout,
            train_n_neg=train_n_neg,
            pred_n_iter=pred_n_iter,
            pred_n_samples=pred_n_samples,
            kevin_inference=kevin_inference,
        )
        self.obs_dim = obs_dim

    def _features(self, obs_dict: Mapping[str, Any]) -> Tensor:
        return self._normalized(obs_dict, self.n_obs_steps)
