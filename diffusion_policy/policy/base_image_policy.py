"""Policies on images and vectors by key."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from diffusion_policy.policy.base_policy import BasePolicy


class BaseImagePolicy(BasePolicy):
    """Observes one key for each camera, `(B, To, C, H, W)` in [0, 1], and for each vector, `(B, To, D)`.

    Attributes:
        obs_shapes: shape of each, by key.
    """

    obs_shapes: Mapping[str, tuple[int, ...]]

    def _normalized(self, obs_dict: Mapping[str, Any], keys: Iterable[str], n_steps: int) -> dict[str, Tensor]:
        """The first steps `(B, n_steps, ...)` of some cameras and sensors, checked and normalised."""
        return {key: self.normalizer[key].normalize(self._checked(obs_dict, key, n_steps)[:, :n_steps]) for key in keys}

    def _checked(self, obs_dict: Mapping[str, Any], key: str, n_steps: int) -> Tensor:
        if key not in obs_dict:
            raise KeyError(f"the observation lacks {key!r}; it has {sorted(obs_dict)}")
        value, shape = obs_dict[key], self.obs_shapes[key]
        if tuple(value.shape[2:]) != shape or value.shape[1] < n_steps:
            hint = ": let the dataset give more of them (dataset_obs_steps=${horizon} for whole windows)"
            raise ValueError(
                f"{key!r} has the shape {tuple(value.shape)}, expected (batch, at least {n_steps} steps, "
                f"{', '.join(map(str, shape))}){hint if value.shape[1] < n_steps else ''}"
            )
        return value
