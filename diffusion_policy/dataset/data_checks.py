"""What makes demonstrations fit for training; each function raises one error that says what to do."""

from collections.abc import Mapping, Sequence

import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.shape_meta import ShapeMeta

Shape = tuple[int, ...]


def step_and_episode(step: int, episode_ends: np.ndarray) -> str:
    """Words that say where a row of a replay buffer is."""
    return f"step {step} (episode {np.searchsorted(episode_ends, step, side='right')})"


def check_finite(replay_buffer: ReplayBuffer, source: str) -> None:
    """Refuses demonstrations with NaN or infinite values, naming the array, the episode and the step."""
    for key, values in replay_buffer.items():
        if not np.issubdtype(values.dtype, np.inexact):
            continue
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            where = step_and_episode(int(np.argmin(finite)), replay_buffer.episode_ends)
            raise ValueError(
                f"{source}: {key!r} has NaN or infinite values, first at {where}; mend or drop that episode"
            )


def check_shape_meta(shape_meta: ShapeMeta, stored: Mapping[str, Sequence[int]], source: str) -> None:
    """Refuses demonstrations that are not what a config's `shape_meta` says.

    Args:
        stored: shape of a step by observation key, and of "action"; images as (H, W, C).
        source: where the data come from.

    Raises:
        ValueError: a key is missing or has another shape.
    """
    for key, shape in shape_meta.obs.items():
        is_image = key in shape_meta.rgb_keys
        if key not in stored:
            kind = "camera" if is_image else "observation"
            has = sorted(set(stored) - {"action"})
            raise ValueError(
                f"{source}: shape_meta has the {kind} {key!r}, which the dataset lacks; it has {has}. Remove "
                f"shape_meta.obs.{key}, or use data that have it"
            )
        _check_shape(f"obs.{key}", shape, stored[key], source, (*shape[1:], shape[0]) if is_image else shape)
    action = (shape_meta.action_dim,)
    _check_shape("action", action, stored["action"], source, action)


def _check_shape(name: str, wanted: Shape, stored: Sequence[int], source: str, wanted_as_stored: Shape) -> None:
    if tuple(stored) != wanted_as_stored:
        layout = "" if wanted == wanted_as_stored else f", which is stored as {list(wanted_as_stored)}"
        raise ValueError(
            f"{source}: {name.split('.')[-1]!r} has steps of shape {list(stored)}, but shape_meta.{name}.shape is "
            f"{list(wanted)}{layout}: correct shape_meta, or convert the data"
        )
