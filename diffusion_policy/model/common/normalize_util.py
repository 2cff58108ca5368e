"""Normalizers that are known beforehand or follow from a few statistics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion_policy.model.common.normalizer import SingleFieldLinearNormalizer
from diffusion_policy.model.common.rotation_transformer import RotationTransformer

Stat = Mapping[str, NDArray[Any]]
"""min, max, mean and std of the rows of an array, `(D,)` each."""

ARM_ACTION_DIM = 10
"""Entries of an arm's absolute action: position, six numbers of rotation, gripper."""


def array_to_stats(arr: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Statistics over the first axis; std is the population's."""
    return {"min": arr.min(axis=0), "max": arr.max(axis=0), "mean": arr.mean(axis=0), "std": arr.std(axis=0)}


def get_image_range_normalizer() -> SingleFieldLinearNormalizer:
    """Maps images in [0, 1] to [-1, 1]; its statistics are those of evenly distributed values."""
    stats = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 12**-0.5}
    return SingleFieldLinearNormalizer.create_manual(
        scale=torch.tensor([2.0]),
        offset=torch.tensor([-1.0]),
        input_stats_dict={key: torch.tensor([value]) for key, value in stats.items()},
    )


def get_range_normalizer_from_stat(
    stat: Stat, output_max: float = 1, output_min: float = -1, range_eps: float = 1e-7
) -> SingleFieldLinearNormalizer:
    """Maps [min, max] to [output_min, output_max]; dimensions of a smaller range than `range_eps` to the middle."""
    return _create(*_range(stat["min"], stat["max"], output_max, output_min, range_eps), stat)


def get_identity_normalizer_from_stat(stat: Stat) -> SingleFieldLinearNormalizer:
    """Changes nothing."""
    return _create(np.ones_like(stat["min"]), np.zeros_like(stat["min"]), stat)


def get_max_abs_normalizer_from_stat(stat: Stat) -> SingleFieldLinearNormalizer:
    """Scales all dimensions alike, so that the largest absolute value of any becomes 1."""
    max_abs = np.maximum(np.abs(stat["max"]).max(), np.abs(stat["min"]).max())
    return _create(np.full_like(stat["max"], 1 / max_abs), np.zeros_like(stat["max"]), stat)


def robomimic_abs_action_normalizer_from_stat(
    stat: Stat, rotation_transformer: RotationTransformer
) -> SingleFieldLinearNormalizer:
    """For one arm's actions in another representation of rotations than `stat`: positions to [-1, 1], the rest as is.

    Args:
        stat: of position, axis-angle and gripper, `(7,)`.
        rotation_transformer: from axis-angles to the representation that the actions have.
    """
    n_rotation = rotation_transformer.forward(stat["mean"][3:6]).size
    return _create(*_arm(stat, n_rotation + 1))


def robomimic_abs_action_only_normalizer_from_stat(stat: Stat) -> SingleFieldLinearNormalizer:
    """For one arm's actions `(10,)`: positions to [-1, 1], rotation and gripper as they are."""
    return _create(*_arm(stat, len(stat["max"]) - 3))


def robomimic_abs_action_only_dual_arm_normalizer_from_stat(stat: Stat) -> SingleFieldLinearNormalizer:
    """For two arms' actions `(20,)`, each as `robomimic_abs_action_only_normalizer_from_stat`."""
    parts = (slice(None, ARM_ACTION_DIM), slice(ARM_ACTION_DIM, None))
    arms = [_arm({key: value[part] for key, value in stat.items()}, ARM_ACTION_DIM - 3) for part in parts]
    scales, offsets, stats = zip(*arms, strict=True)
    joined = {key: np.concatenate([each[key] for each in stats]) for key in stats[0]}
    return _create(np.concatenate(scales), np.concatenate(offsets), joined)


def _arm(stat: Stat, n_rest: int) -> tuple[NDArray[Any], NDArray[Any], Stat]:
    """Scale, offset and statistics of a position in three entries and `n_rest` others, which count as normalised."""
    position = {key: value[:3] for key, value in stat.items()}
    scale, offset = _range(position["min"], position["max"])
    one = np.ones(n_rest, scale.dtype)
    rest = {"min": -one, "max": one, "mean": 0 * one, "std": one}
    stats = {key: np.concatenate((position[key], rest[key])) for key in rest}
    return np.concatenate((scale, one)), np.concatenate((offset, 0 * one)), stats


def _range(
    low: NDArray[Any], high: NDArray[Any], output_max: float = 1, output_min: float = -1, range_eps: float = 1e-7
) -> tuple[NDArray[Any], NDArray[Any]]:
    constant = high - low < range_eps
    scale = (output_max - output_min) / np.where(constant, output_max - output_min, high - low)
    offset = np.where(constant, (output_max + output_min) / 2 - low, output_min - scale * low)
    return scale.astype(low.dtype), offset.astype(low.dtype)


def _create(scale: NDArray[Any], offset: NDArray[Any], stat: Stat) -> SingleFieldLinearNormalizer:
    return SingleFieldLinearNormalizer.create_manual(scale=scale, offset=offset, input_stats_dict=dict(stat))
