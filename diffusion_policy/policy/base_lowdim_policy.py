"""Policies on vectors: states, keypoints, joint angles."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_policy.policy.base_policy import BasePolicy


class BaseLowdimPolicy(BasePolicy):
    """Observes `obs` `(B, To, Do)`.

    Attributes:
        obs_dim: length Do of an observation; 0 where a policy is not told.
    """

    obs_dim: int = 0

    def _checked(self, obs_dict: Mapping[str, Any], n_steps: int) -> Tensor:
        """The observations `(B, >= n_steps, Do)`."""
        if "obs" not in obs_dict:
            raise KeyError(f"the observation lacks the key 'obs'; it has {sorted(obs_dict)}")
        obs: Tensor = obs_dict["obs"]
        if obs.ndim != 3 or obs.shape[1] < n_steps or obs.shape[2] != (self.obs_dim or obs.shape[2]):
            raise ValueError(
                f"obs has the shape {tuple(obs.shape)}, expected (batch, at least {n_steps} steps, "
                f"{self.obs_dim or 'Do'})"
            )
        return obs

    def _normalized(self, obs_dict: Mapping[str, Any], n_steps: int) -> Tensor:
        """The first steps `(B, n_steps, Do)` of the observations, checked and normalised."""
        return self.normalizer["obs"].normalize(self._checked(obs_dict, n_steps)[:, :n_steps])
