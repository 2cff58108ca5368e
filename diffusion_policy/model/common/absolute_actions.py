"""Actions that are poses to reach: as robosuite takes them, and as policies predict them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.model.common.rotation_transformer import RotationTransformer

ENV_DIM = 7
"""Entries of an arm's action as robosuite takes it: position (m), axis-angle (rad), gripper."""


class AbsoluteActions:
    """Converts actions of one or more arms, `(..., n * 7)` with axis-angles, to and from another representation.

    Args:
        rotation_rep: what stands for a rotation in what policies predict: "rotation_6d", "quaternion", ...
    """

    def __init__(self, rotation_rep: str = "rotation_6d") -> None:
        self._transformer = RotationTransformer("axis_angle", rotation_rep)
        self.dim = 4 + self._transformer.forward(np.zeros(3)).size
        """Entries of an arm's action then."""

    def from_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """From robosuite's `(..., n * 7)` to `(..., n * dim)`."""
        arms = _arms(action, ENV_DIM)
        rotation = self._transformer.forward(arms[..., 3:6])
        return np.concatenate((arms[..., :3], rotation, arms[..., 6:]), axis=-1).reshape(*action.shape[:-1], -1)

    def to_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """From `(..., n * dim)` to robosuite's `(..., n * 7)`."""
        arms = _arms(action, self.dim)
        rotation = self._transformer.inverse(arms[..., 3:-1])
        return np.concatenate((arms[..., :3], rotation, arms[..., -1:]), axis=-1).reshape(*action.shape[:-1], -1)


def _arms(action: NDArray[Any], dim: int) -> NDArray[Any]:
    if action.shape[-1] % dim:
        raise ValueError(f"absolute actions have {dim} entries for each arm, got {action.shape[-1]}")
    return action.reshape(*action.shape[:-1], -1, dim)
