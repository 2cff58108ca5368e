"""What the datasets of robomimic's demonstrations make of stored actions."""

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.model.common import normalize_util
from diffusion_policy.model.common.absolute_actions import ENV_DIM, AbsoluteActions
from diffusion_policy.model.common.normalize_util import ARM_ACTION_DIM, Stat
from diffusion_policy.model.common.normalizer import SingleFieldLinearNormalizer


def check_action_dim(shape: tuple[int, ...], abs_action: bool, source: str) -> None:
    """Refuses actions that cannot be poses of one or two arms where they have to be."""
    if len(shape) != 1 or (abs_action and shape[0] not in (ENV_DIM, 2 * ENV_DIM)):
        raise ValueError(
            f"{source}: actions have shape {list(shape)}, expected {'[7] or [14]' if abs_action else 'vectors'}: "
            "position, rotation and gripper of each arm"
        )


def converted_actions(action: NDArray, abs_action: bool, rotation_rep: str) -> NDArray[np.float32]:
    """Stored actions `(N, n * 7)` as policies predict them: absolute ones `(N, n * 10)`, others as they are."""
    return (AbsoluteActions(rotation_rep).from_env(action) if abs_action else action).astype(np.float32)


def action_normalizer(stat: Stat, abs_action: bool, use_legacy_normalizer: bool) -> SingleFieldLinearNormalizer:
    """For steps, which are in [-1, 1]: identity. For poses: positions to [-1, 1], or all by the largest entry."""
    if not abs_action:
        return normalize_util.get_identity_normalizer_from_stat(stat)
    if use_legacy_normalizer:
        return normalize_util.get_max_abs_normalizer_from_stat(stat)
    if len(stat["mean"]) > ARM_ACTION_DIM:
        return normalize_util.robomimic_abs_action_only_dual_arm_normalizer_from_stat(stat)
    return normalize_util.robomimic_abs_action_only_normalizer_from_stat(stat)
