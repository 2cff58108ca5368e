"""What cameras and robot have seen, at the same moments."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def last_before(timestamps: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each of the `moments` `(T,)` the index of the last of the ascending `timestamps` before it; 0 if none is."""
    return np.maximum(np.searchsorted(timestamps, moments, side="left") - 1, 0)


def renamed_states(states: Mapping[str, NDArray[Any]], key_map: Mapping[str, str]) -> Arrays:
    """Those entries of the robot's states that are observed, by their names as observations."""
    return {key_map[key]: values for key, values in states.items() if key in key_map}


def aligned_observation(
    frames: Mapping[int, Mapping[str, NDArray[Any]]],
    states: Mapping[str, NDArray[Any]],
    key_map: Mapping[str, str],
    n_obs_steps: int,
    dt: float,
) -> Arrays:
    """The last `n_obs_steps` moments, `dt` (s) apart, of which the last is that of the newest frame.

    Args:
        frames: of each camera by index, `color` `(k, H, W, 3)` and `timestamp` `(k,)`, oldest first.
        states: of the robot, `(k, ...)` by key, and `robot_receive_timestamp` `(k,)`.
        key_map: what an entry of a state is called as an observation; others are left out.

    Returns:
        `camera_<i>` `(To, H, W, 3)`, the robot's `(To, ...)`, each the last one before its moment, and `timestamp`
        `(To,)`, the moments.
    """
    newest = max(frame["timestamp"][-1] for frame in frames.values())
    moments = newest - np.arange(n_obs_steps)[::-1] * dt
    obs = {f"camera_{i}": frame["color"][last_before(frame["timestamp"], moments)] for i, frame in frames.items()}
    rows = last_before(states["robot_receive_timestamp"], moments)
    obs |= {name: values[rows] for name, values in renamed_states(states, key_map).items()}
    return obs | {"timestamp": moments}
